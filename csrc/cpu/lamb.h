// Arguments of lamb.
#pragma once

#include "cpu/isa.h"
#include "cpu/moments.h"
#include "cpu/multi_tensor.h"

namespace bigfast::cpu {

struct Lamb {
  StepList list;
  Moments moments;
  float unbias1;  // 1 / (1 - beta1^t)
  float lr, weight_decay;
  double* sums;  // (tasks, 2): each task's sums of p^2 and u^2
  float* rates;  // (count): lr times the trust ratio of each tensor
};

BIGFAST_KERNEL(lamb, Lamb)

}  // namespace bigfast::cpu
