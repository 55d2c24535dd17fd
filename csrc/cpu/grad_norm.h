// Arguments of grad_norm: one piece of a tensor per task.
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

constexpr int64_t grad_norm_task = 1 << 16;  // elements

struct GradNormTask {
  const void* grad;  // (size), dtype
  int64_t size;      // at most grad_norm_task
  DType dtype;
};

struct GradNorm {
  const GradNormTask* tasks;
  double* squares;  // (count): each task's sum of squares
  int64_t count;
};

BIGFAST_KERNEL(grad_norm, GradNorm)

}  // namespace bigfast::cpu
