// What the bindings of the optimizer steps share: the checks of their lists, cut into tasks.
#pragma once

#include <cmath>

#include "cpu/moments.h"
#include "cpu/multi_tensor.h"
#include "torch/tensor.h"

namespace bigfast {

using Tensors = std::vector<Tensor>;

inline double number(const Tensor& t, const char* name) {
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

// Whether a gradient was infinite, so that nothing may be written.
inline bool skips(const OptTensor& found_inf) {
  return found_inf.has_value() && number(*found_inf, "found_inf") != 0.0;
}

// bias2: what the second moment is divided by, to be right on average.
inline cpu::Moments moments(double rate1, double rate2, double bias2, double eps) {
  return {static_cast<float>(rate1), static_cast<float>(1.0 - rate2), static_cast<float>(rate2),
          static_cast<float>(1.0 / std::sqrt(bias2)), static_cast<float>(eps)};
}

// The tensors of one step, but the empty ones. exp_avg_sqs: null in a step that has none.
class Step {
 public:
  Step(const Tensors& params, const Tensors& grads, const Tensors& exp_avgs,
       const Tensors* exp_avg_sqs, const Tensors& masters, const OptTensor& grad_scale,
       const OptTensor& seed, bool maximize) {
    const size_t count = params.size();
    STD_TORCH_CHECK(grads.size() == count && exp_avgs.size() == count &&
                        (!exp_avg_sqs || exp_avg_sqs->size() == count) &&
                        (masters.empty() || masters.size() == count),
                    "lists must have one tensor per parameter");
    tensors_.reserve(count);
    int64_t tasks = 0;
    for (size_t i = 0; i < count; ++i) {
      const int64_t size = params[i].numel();
      if (size == 0) continue;
      check_contiguous(params[i], "param");
      check_contiguous(grads[i], "grad");
      STD_TORCH_CHECK(grads[i].numel() == size, "grad must have its parameter's shape");
      tensors_.push_back({data(params[i]), data(grads[i]), state(exp_avgs[i], size, "exp_avg"),
                          exp_avg_sqs ? state((*exp_avg_sqs)[i], size, "exp_avg_sq") : nullptr,
                          masters.empty() ? nullptr : state(masters[i], size, "master"), size,
                          tasks, static_cast<uint32_t>(i), dtype_of(params[i]),
                          dtype_of(grads[i])});
      tasks += (size + cpu::step_task - 1) / cpu::step_task;
    }
    if (seed.has_value()) {
      check_contiguous(*seed, "seed");
      STD_TORCH_CHECK(seed->scalar_type() == ScalarType::Long && seed->numel() == 1,
                      "seed must be one int64");
    }
    const double scale = grad_scale.has_value() ? number(*grad_scale, "grad_scale") : 1.0;
    list_ = {tensors_.data(), static_cast<int64_t>(tensors_.size()), tasks,
             data_or_null<int64_t>(seed), static_cast<float>(maximize ? -scale : scale)};
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  const cpu::StepList& list() const { return list_; }

 private:
  static float* state(const Tensor& t, int64_t size, const char* name) {
    check_contiguous(t, name);
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.numel() == size, name,
                    " must be float32, like its parameter in shape");
    return static_cast<float*>(data(t));
  }

  std::vector<cpu::StepTensor> tensors_;
  cpu::StepList list_{};
};

}  // namespace bigfast
