// Arguments of linear_few.
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

struct LinearFew {
  const void* x;       // (rows, in), dtype
  const void* weight;  // (out, in), dtype, rows weight_stride elements apart
  const void* bias;    // (out), dtype; or null
  void* y;             // (rows, out), dtype
  int64_t rows, in, out, weight_stride;
  DType dtype;
};

BIGFAST_KERNEL(linear_few, LinearFew)

}  // namespace bigfast::cpu
