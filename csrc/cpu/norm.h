// Arguments of layer_norm and rms_norm, which share one body (norm.inl).
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

struct NormForward {
  const void* x;         // (tokens, features), x_dtype
  const void* residual;  // (tokens, features), r_dtype; or null
  const void* weight;    // (features), w_dtype
  const void* bias;      // (features), w_dtype; or null
  void* y;               // (tokens, features), y_dtype
  void* r;               // (tokens, features), r_dtype; null: not wanted
  float* mean;           // (tokens); null for rms_norm
  float* rstd;           // (tokens)
  int64_t tokens, features;
  DType x_dtype, r_dtype, y_dtype, w_dtype;
  float eps;
  Dropout dropout;
};

struct NormBackward {
  const void* dy;      // (tokens, features), y_dtype
  const void* dr_out;  // gradient of the r that was returned: (tokens, features), r_dtype; or null
  const void* r;       // (tokens, features), r_dtype
  const void* weight;  // (features), w_dtype
  const float* mean;   // (tokens); null for rms_norm
  const float* rstd;   // (tokens)
  void* dx;            // (tokens, features), x_dtype
  void* dresidual;     // (tokens, features), r_dtype; null: not wanted
  void* dweight;       // (features), w_dtype
  void* dbias;         // (features), w_dtype; or null
  int64_t tokens, features;
  DType x_dtype, r_dtype, y_dtype, w_dtype;
  Dropout dropout;
};

BIGFAST_KERNEL(layer_norm_fwd, NormForward)
BIGFAST_KERNEL(layer_norm_bwd, NormBackward)
BIGFAST_KERNEL(rms_norm_fwd, NormForward)
BIGFAST_KERNEL(rms_norm_bwd, NormBackward)

}  // namespace bigfast::cpu
