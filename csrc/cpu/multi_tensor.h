// Arguments that the optimizer steps share: a list of tensors, cut into tasks of as many elements.
#pragma once

#include "args/multi_tensor.h"
#include "cpu/types.h"

namespace bigfast::cpu {

constexpr int64_t step_task = 1 << 15;  // elements

struct StepList {
  const StepTensor* tensors;
  int64_t count, tasks;
  const int64_t* seed;  // of the stochastic rounding of bf16 without master; null: to nearest
  float grad_scale;     // what gradients are multiplied with
};

}  // namespace bigfast::cpu
