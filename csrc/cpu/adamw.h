// Arguments of adamw: a list of tensors, cut into tasks of as many elements.
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

constexpr int64_t adamw_task = 1 << 15;  // elements

struct AdamWTensor {
  void* param;        // (size), param_dtype
  const void* grad;   // (size), grad_dtype
  float* exp_avg;     // (size)
  float* exp_avg_sq;  // (size)
  float* master;      // (size); null: the parameter itself is updated
  int64_t size;
  int64_t first_task;  // tasks of the tensors before this one
  DType param_dtype, grad_dtype;
};

struct AdamW {
  const AdamWTensor* tensors;
  int64_t count, tasks;
  float grad_scale;       // what gradients are multiplied with
  float decay;            // 1 - lr weight_decay
  float rate1;            // 1 - beta1
  float beta2, rate2;     // rate2 = 1 - beta2
  float step_size;        // lr / (1 - beta1^t)
  float correction, eps;  // correction = 1 / sqrt(1 - beta2^t)
};

BIGFAST_KERNEL(adamw, AdamW)

}  // namespace bigfast::cpu
