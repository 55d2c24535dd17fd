// Arguments of the gated activations, swiglu and geglu.
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

struct GatedForward {
  const void* gate;  // (rows, features), gate_stride elements from row to row
  const void* up;    // (rows, features), up_stride elements from row to row
  void* y;           // (rows, features)
  int64_t rows, features, gate_stride, up_stride;
  DType dtype;
  bool tanh;  // geglu: the approximation, instead of the exact function
};

struct GatedBackward {
  const void* dy;    // (rows, features)
  const void* gate;  // as in forward
  const void* up;
  void* dgate;  // (rows, features), grad_stride elements from row to row
  void* dup;    // the same
  int64_t rows, features, gate_stride, up_stride, grad_stride;
  DType dtype;
  bool tanh;  // geglu: the approximation, instead of the exact function
};

BIGFAST_KERNEL(swiglu_fwd, GatedForward)
BIGFAST_KERNEL(swiglu_bwd, GatedBackward)
BIGFAST_KERNEL(geglu_fwd, GatedForward)
BIGFAST_KERNEL(geglu_bwd, GatedBackward)

}  // namespace bigfast::cpu
