// Arguments of layer_norm and rms_norm, which share one body (cpu/norm.inl, cuda/norm.cuh).
#pragma once

#include "args/types.h"

namespace bigfast {

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
  float* partials;     // CUDA's scratch, of cuda::norm_partials() numbers; null on the CPU
  int64_t tokens, features;
  DType x_dtype, r_dtype, y_dtype, w_dtype;
  Dropout dropout;
};

}  // namespace bigfast
