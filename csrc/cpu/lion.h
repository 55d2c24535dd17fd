// Arguments of lion.
#pragma once

#include "cpu/isa.h"
#include "cpu/multi_tensor.h"

namespace bigfast::cpu {

struct Lion {
  StepList list;
  float rate1, rate2;  // 1 - beta1, 1 - beta2
  float decay;         // 1 - lr weight_decay
  float lr;
};

BIGFAST_KERNEL(lion, Lion)

}  // namespace bigfast::cpu
