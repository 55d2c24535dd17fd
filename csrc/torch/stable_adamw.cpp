// Binding of stable_adamw: what depends on the hyperparameters alone, scratch; calls
// csrc/cpu/stable_adamw.cpp.
#include "cpu/stable_adamw.h"

#include <cmath>

#include "torch/multi_tensor.h"

namespace bigfast {
namespace {

void stable_adamw_(Tensors params, Tensors grads, Tensors exp_avgs, Tensors exp_avg_sqs,
                   Tensors masters, const Tensor step, const Tensor lr, const OptTensor grad_scale,
                   const OptTensor found_inf, const OptTensor seed, double beta1, double beta2,
                   double eps, double weight_decay, bool maximize) {
  const Step lists(params, grads, exp_avgs, &exp_avg_sqs, masters, grad_scale, seed, maximize);
  if (skips(found_inf)) return;
  const double rate = number(lr, "lr");
  const double t = number(step, "step");
  std::vector<double> sums(lists.list().tasks), rates(lists.list().count);
  // 1 - beta (1 - beta^(t-1)) / (1 - beta^t) = (1 - beta) / (1 - beta^t)
  const double rate1 = (1.0 - beta1) / (1.0 - std::pow(beta1, t));
  const double rate2 = (1.0 - beta2) / (1.0 - std::pow(beta2, t));
  cpu::StableAdamW args{};
  args.list = lists.list();
  args.moments = moments(rate1, rate2, 1.0, eps);
  args.lr = rate;
  args.weight_decay = weight_decay;
  args.sums = sums.data();
  args.rates = rates.data();
  cpu::stable_adamw(args);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("stable_adamw_", TORCH_BOX(&stable_adamw_)); }

}  // namespace bigfast
