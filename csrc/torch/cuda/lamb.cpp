// Binding of lamb on CUDA: scratch; calls csrc/cuda/lamb.cu.
#include "cuda/lamb.h"

#include "torch/cuda/multi_tensor.h"

namespace bigfast {
namespace {

void lamb_(Tensors params, Tensors grads, Tensors exp_avgs, Tensors exp_avg_sqs, Tensors masters,
           const Tensor step, const Tensor lr, const OptTensor grad_scale,
           const OptTensor found_inf, const OptTensor seed, double beta1, double beta2, double eps,
           double weight_decay, bool maximize) {
  if (params.empty()) return;
  const Step lists(params, grads, exp_avgs, exp_avg_sqs, masters, grad_scale, found_inf, seed,
                   maximize);
  const cuda::StepTable& table = lists.list().table;
  const Tensor sums = lists.scratch(2 * int64_t{table.blocks}), rates = lists.scratch(table.count);
  cuda::lamb({lists.list(), moments(beta1, beta2, eps), step_number(step, "step"),
              step_number(lr, "lr"), static_cast<float>(weight_decay),
              static_cast<float*>(data(sums)), static_cast<float*>(data(rates))},
             lists.groups(), lists.stream());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(BIGFAST_NAMESPACE, BIGFAST_KEY, m) { m.impl("lamb_", TORCH_BOX(&lamb_)); }

}  // namespace bigfast
