// Binding of lion: what depends on the hyperparameters alone; calls csrc/cpu/lion.cpp.
#include "cpu/lion.h"

#include "torch/multi_tensor.h"

namespace bigfast {
namespace {

void lion_(Tensors params, Tensors grads, Tensors exp_avgs, Tensors masters, const Tensor lr,
           const OptTensor grad_scale, const OptTensor found_inf, const OptTensor seed,
           double beta1, double beta2, double weight_decay, bool maximize) {
  const Step lists(params, grads, exp_avgs, nullptr, masters, grad_scale, seed, maximize);
  if (skips(found_inf)) return;
  const double rate = number(lr, "lr");
  cpu::Lion args{};
  args.list = lists.list();
  args.rate1 = static_cast<float>(1.0 - beta1);
  args.rate2 = static_cast<float>(1.0 - beta2);
  args.decay = static_cast<float>(1.0 - rate * weight_decay);
  args.lr = static_cast<float>(rate);
  cpu::lion(args);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("lion_", TORCH_BOX(&lion_)); }

}  // namespace bigfast
