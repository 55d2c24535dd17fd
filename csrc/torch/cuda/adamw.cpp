// Binding of adamw on CUDA: calls csrc/cuda/adamw.cu.
#include "cuda/adamw.h"

#include "torch/cuda/multi_tensor.h"

namespace bigfast {
namespace {

void adamw_(Tensors params, Tensors grads, Tensors exp_avgs, Tensors exp_avg_sqs, Tensors masters,
            const Tensor step, const Tensor lr, const OptTensor grad_scale,
            const OptTensor found_inf, const OptTensor seed, double beta1, double beta2, double eps,
            double weight_decay, bool maximize) {
  if (params.empty()) return;
  const Step lists(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale, found_inf, seed,
                   maximize);
  cuda::adamw({lists.list(), moments(beta1, beta2, eps), step_number(step, "step"),
               step_number(lr, "lr"), weight_decay},
              lists.groups(), lists.stream());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(BIGFAST_NAMESPACE, BIGFAST_KEY, m) {
  m.impl("adamw_", TORCH_BOX(&adamw_));
}

}  // namespace bigfast
