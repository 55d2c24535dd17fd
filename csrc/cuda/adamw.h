// adamw on CUDA: what adamw.cu launches. The stream is a cudaStream_t; the device is the current
// one.
#pragma once

#include "cuda/moments.h"
#include "cuda/multi_tensor.h"

namespace bigfast::cuda {

struct AdamW {
  StepList list;
  Moments moments;
  Number step;  // counted from 1
  Number lr;
  double weight_decay;
};

// groups: those of the list's tensors.
void adamw(const AdamW& args, const std::vector<StepGroup>& groups, void* stream);

}  // namespace bigfast::cuda
