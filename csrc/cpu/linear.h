// Arguments of linear and its gradients. Matrices are (rows, columns); a stride is that of rows.
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

struct Linear {
  const void* x;       // (rows, in), dtype
  const void* weight;  // (out, in), dtype, rows weight_stride elements apart
  const void* bias;    // (out), dtype; or null
  void* y;             // (rows, out), dtype
  int64_t rows, in, out, weight_stride;
  DType dtype;
};

struct LinearInput {
  const void* dy;      // (rows, out), dtype
  const void* weight;  // (out, in), dtype, rows weight_stride elements apart
  void* dx;            // (rows, in), dtype
  int64_t rows, in, out, weight_stride;
  DType dtype;
};

struct LinearWeight {
  const void* dy;  // (rows, out), dtype
  const void* x;   // (rows, in), dtype
  void* dweight;   // (out, in), out_dtype
  int64_t rows, in, out;
  DType dtype, out_dtype;
};

BIGFAST_KERNEL(linear, Linear)
BIGFAST_KERNEL(linear_bwd_input, LinearInput)
BIGFAST_KERNEL(linear_bwd_weight, LinearWeight)

}  // namespace bigfast::cpu
