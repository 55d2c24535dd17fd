// layer_norm and rms_norm on CUDA: what norm.cu launches. The stream is a cudaStream_t; the device
// is the current one.
#pragma once

#include "args/norm.h"

namespace bigfast::cuda {

void norm_fwd(const NormForward& args, void* stream);
void norm_bwd(const NormBackward& args, void* stream);
// How many numbers NormBackward::partials holds.
int64_t norm_partials(int64_t tokens, int64_t features);

inline void layer_norm_fwd(const NormForward& args, void* stream) { norm_fwd(args, stream); }
inline void layer_norm_bwd(const NormBackward& args, void* stream) { norm_bwd(args, stream); }
inline void rms_norm_fwd(const NormForward& args, void* stream) { norm_fwd(args, stream); }
inline void rms_norm_bwd(const NormBackward& args, void* stream) { norm_bwd(args, stream); }

}  // namespace bigfast::cuda
