// Arguments that the optimizer steps share: a list of tensors, cut into tasks of as many elements.
#pragma once

#include "cpu/types.h"

namespace bigfast::cpu {

constexpr int64_t step_task = 1 << 15;  // elements

struct StepTensor {
  void* param;        // (size), param_dtype
  const void* grad;   // (size), grad_dtype
  float* exp_avg;     // (size)
  float* exp_avg_sq;  // (size); null in a step that has none
  float* master;      // (size); null: the parameter itself is updated
  int64_t size;
  int64_t first_task;  // tasks of the tensors before this one
  uint32_t plane;      // its place in the caller's list, for the random numbers
  DType param_dtype, grad_dtype;
};

struct StepList {
  const StepTensor* tensors;
  int64_t count, tasks;
  const int64_t* seed;  // of the stochastic rounding of bf16 without master; null: to nearest
  float grad_scale;     // what gradients are multiplied with
};

}  // namespace bigfast::cpu
