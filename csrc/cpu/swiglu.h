// Arguments of swiglu.
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

struct SwigluForward {
  const void* gate;  // (rows, features), gate_stride elements from row to row
  const void* up;    // (rows, features), up_stride elements from row to row
  void* y;           // (rows, features)
  int64_t rows, features, gate_stride, up_stride;
  DType dtype;
};

struct SwigluBackward {
  const void* dy;    // (rows, features)
  const void* gate;  // as in forward
  const void* up;
  void* dgate;  // (rows, features)
  void* dup;    // (rows, features)
  int64_t rows, features, gate_stride, up_stride;
  DType dtype;
};

BIGFAST_KERNEL(swiglu_fwd, SwigluForward)
BIGFAST_KERNEL(swiglu_bwd, SwigluBackward)

}  // namespace bigfast::cpu
