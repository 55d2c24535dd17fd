// The moments of Adam's family, as arguments.
#pragma once

namespace bigfast::cuda {

struct Moments {
  double log_beta1, log_beta2;  // -inf where a beta is 0
  float rate1;                  // 1 - beta1
  float beta2, rate2;           // rate2 = 1 - beta2
  float eps;
};

}  // namespace bigfast::cuda
