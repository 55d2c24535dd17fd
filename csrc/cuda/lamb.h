// lamb on CUDA: what lamb.cu launches. The stream is a cudaStream_t; the device is the current one.
#pragma once

#include "cuda/moments.h"
#include "cuda/multi_tensor.h"

namespace bigfast::cuda {

struct Lamb {
  StepList list;
  Moments moments;
  Number step;  // counted from 1
  Number lr;
  float weight_decay;
  float* sums;   // (blocks, 2), scratch: each chunk's sums of p^2 and u^2
  float* rates;  // (count), scratch: lr times the trust ratio of each tensor
};

// groups: those of the list's tensors.
void lamb(const Lamb& args, const std::vector<StepGroup>& groups, void* stream);

}  // namespace bigfast::cuda
