// Arguments of bias_gelu.
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

struct BiasGeluForward {
  const void* x;     // (tokens, features), dtype
  const void* bias;  // (features), bias_dtype; or null
  void* y;           // (tokens, features), dtype
  int64_t tokens, features;
  DType dtype, bias_dtype;
  bool tanh;  // the approximation, instead of the exact function
};

struct BiasGeluBackward {
  const void* dy;    // (tokens, features), dtype
  const void* x;     // (tokens, features), dtype
  const void* bias;  // (features), bias_dtype; or null
  void* dx;          // (tokens, features), dtype
  void* dbias;       // (features), bias_dtype; null where bias is
  int64_t tokens, features;
  DType dtype, bias_dtype;
  bool tanh;
};

BIGFAST_KERNEL(bias_gelu_fwd, BiasGeluForward)
BIGFAST_KERNEL(bias_gelu_bwd, BiasGeluBackward)

}  // namespace bigfast::cpu
