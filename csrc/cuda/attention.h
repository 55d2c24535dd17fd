// attention on CUDA: what attention.cu launches. The stream is a cudaStream_t; the device is the
// current one. Head dims are multiples of 8 up to 128, dtypes f16, and bf16 from sm_80 on.
#pragma once

#include "args/attention.h"

namespace bigfast::cuda {

void attention_fwd(const AttentionForward& args, void* stream);
void attention_bwd(const AttentionBackward& args, void* stream);

}  // namespace bigfast::cuda
