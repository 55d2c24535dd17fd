// Binding of adamw: what depends on the hyperparameters alone; calls csrc/cpu/adamw.cpp.
#include "cpu/adamw.h"

#include <cmath>

#include "torch/multi_tensor.h"

namespace bigfast {
namespace {

void adamw_(Tensors params, Tensors grads, Tensors exp_avgs, Tensors exp_avg_sqs, Tensors masters,
            const Tensor step, const Tensor lr, const OptTensor grad_scale,
            const OptTensor found_inf, const OptTensor seed, double beta1, double beta2, double eps,
            double weight_decay, bool maximize) {
  const Step lists(params, grads, exp_avgs, &exp_avg_sqs, masters, grad_scale, seed, maximize);
  if (skips(found_inf)) return;
  const double rate = number(lr, "lr");
  const double t = number(step, "step");
  cpu::AdamW args{};
  args.list = lists.list();
  args.moments = moments(1.0 - beta1, 1.0 - beta2, 1.0 - std::pow(beta2, t), eps);
  args.decay = static_cast<float>(1.0 - rate * weight_decay);
  args.step_size = static_cast<float>(rate / (1.0 - std::pow(beta1, t)));
  cpu::adamw(args);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("adamw_", TORCH_BOX(&adamw_)); }

}  // namespace bigfast
