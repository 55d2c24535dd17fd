// One tensor of an optimizer step, on every device.
#pragma once

#include "args/types.h"

namespace bigfast {

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

  bool operator==(const StepTensor&) const = default;
};

}  // namespace bigfast
