// Arguments of adamw.
#pragma once

#include "cpu/isa.h"
#include "cpu/moments.h"
#include "cpu/multi_tensor.h"

namespace bigfast::cpu {

struct AdamW {
  StepList list;
  Moments moments;
  float decay;      // 1 - lr weight_decay
  float step_size;  // lr / (1 - beta1^t)
};

BIGFAST_KERNEL(adamw, AdamW)

}  // namespace bigfast::cpu
