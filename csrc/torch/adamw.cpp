// Binding of adamw: checks, cuts into tasks, calls csrc/cpu/adamw.cpp.
#include "cpu/adamw.h"

#include <cmath>

#include "torch/tensor.h"

namespace bigfast {
namespace {

float* state_of(const Tensor& t, int64_t size, const char* name) {
  check_contiguous(t, name);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.numel() == size, name,
                  " must be float32, like its parameter in shape");
  return static_cast<float*>(data(t));
}

double number(const Tensor& t, const char* name) {
  check_contiguous(t, name);
  STD_TORCH_CHECK(t.numel() == 1, name, " must be one number");
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return *static_cast<const float*>(data(t));
    case ScalarType::Double:
      return *static_cast<const double*>(data(t));
    case ScalarType::Long:
      return static_cast<double>(*static_cast<const int64_t*>(data(t)));
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float64 or int64");
  }
}

void adamw_(std::vector<Tensor> params, std::vector<Tensor> grads, std::vector<Tensor> exp_avgs,
            std::vector<Tensor> exp_avg_sqs, std::vector<Tensor> masters, const Tensor step,
            const OptTensor grad_scale, double lr, double beta1, double beta2, double eps,
            double weight_decay, bool maximize) {
  const size_t count = params.size();
  STD_TORCH_CHECK(grads.size() == count && exp_avgs.size() == count &&
                      exp_avg_sqs.size() == count && (masters.empty() || masters.size() == count),
                  "lists must have one tensor per parameter");
  std::vector<cpu::AdamWTensor> tensors;
  tensors.reserve(count);
  int64_t tasks = 0;
  for (size_t i = 0; i < count; ++i) {
    const int64_t size = params[i].numel();
    if (size == 0) continue;
    check_contiguous(params[i], "param");
    check_contiguous(grads[i], "grad");
    STD_TORCH_CHECK(grads[i].numel() == size, "grad must have its parameter's shape");
    tensors.push_back({data(params[i]), data(grads[i]), state_of(exp_avgs[i], size, "exp_avg"),
                       state_of(exp_avg_sqs[i], size, "exp_avg_sq"),
                       masters.empty() ? nullptr : state_of(masters[i], size, "master"), size,
                       tasks, dtype_of(params[i]), dtype_of(grads[i])});
    tasks += (size + cpu::adamw_task - 1) / cpu::adamw_task;
  }
  const double t = number(step, "step");
  const double scale = grad_scale.has_value() ? number(*grad_scale, "grad_scale") : 1.0;

  cpu::AdamW args{};
  args.tensors = tensors.data();
  args.count = static_cast<int64_t>(tensors.size());
  args.tasks = tasks;
  args.grad_scale = static_cast<float>(maximize ? -scale : scale);
  args.decay = static_cast<float>(1.0 - lr * weight_decay);
  args.rate1 = static_cast<float>(1.0 - beta1);
  args.beta2 = static_cast<float>(beta2);
  args.rate2 = static_cast<float>(1.0 - beta2);
  args.step_size = static_cast<float>(lr / (1.0 - std::pow(beta1, t)));
  args.correction = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(beta2, t)));
  args.eps = static_cast<float>(eps);
  cpu::adamw(args);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("adamw_", TORCH_BOX(&adamw_)); }

}  // namespace bigfast
