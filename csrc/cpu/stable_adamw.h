// Arguments of stable_adamw.
#pragma once

#include "cpu/isa.h"
#include "cpu/moments.h"
#include "cpu/multi_tensor.h"

namespace bigfast::cpu {

struct StableAdamW {
  StepList list;
  Moments moments;  // with the debiased rates of the paper, so that correction is 1
  double lr, weight_decay;
  double* sums;   // (tasks): each task's sum of g^2 / max(v, eps^2)
  double* rates;  // (count): the clipped lr of each tensor
};

BIGFAST_KERNEL(stable_adamw, StableAdamW)

}  // namespace bigfast::cpu
