// Binding of lamb: what depends on the hyperparameters alone, scratch; calls csrc/cpu/lamb.cpp.
#include "cpu/lamb.h"

#include <cmath>

#include "torch/multi_tensor.h"

namespace bigfast {
namespace {

void lamb_(Tensors params, Tensors grads, Tensors exp_avgs, Tensors exp_avg_sqs, Tensors masters,
           const Tensor step, const Tensor lr, const OptTensor grad_scale,
           const OptTensor found_inf, const OptTensor seed, double beta1, double beta2, double eps,
           double weight_decay, bool maximize) {
  const Step lists(params, grads, exp_avgs, &exp_avg_sqs, masters, grad_scale, seed, maximize);
  if (skips(found_inf)) return;
  const double rate = number(lr, "lr");
  const double t = number(step, "step");
  std::vector<double> sums(2 * lists.list().tasks);
  std::vector<float> rates(lists.list().count);
  cpu::Lamb args{};
  args.list = lists.list();
  args.moments = moments(1.0 - beta1, 1.0 - beta2, 1.0 - std::pow(beta2, t), eps);
  args.unbias1 = static_cast<float>(1.0 / (1.0 - std::pow(beta1, t)));
  args.lr = static_cast<float>(rate);
  args.weight_decay = static_cast<float>(weight_decay);
  args.sums = sums.data();
  args.rates = rates.data();
  cpu::lamb(args);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("lamb_", TORCH_BOX(&lamb_)); }

}  // namespace bigfast
