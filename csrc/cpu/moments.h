// The moments of Adam's family.
#pragma once

namespace bigfast::cpu {

struct Moments {
  float rate1;            // 1 - beta1
  float beta2, rate2;     // rate2 = 1 - beta2
  float correction, eps;  // correction = 1 / sqrt(1 - beta2^t), or 1
};

}  // namespace bigfast::cpu
