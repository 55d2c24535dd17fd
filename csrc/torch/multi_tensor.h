// What the bindings of the optimizer steps share on the CPU: their lists, cut into tasks.
#pragma once

#include <cmath>

#include "cpu/moments.h"
#include "cpu/multi_tensor.h"
#include "torch/step_tensors.h"

namespace bigfast {

// Whether a gradient was infinite, so that nothing may be written.
inline bool skips(const OptTensor& found_inf) {
  return found_inf.has_value() && number(*found_inf, "found_inf") != 0.0;
}

// bias2: what the second moment is divided by, to be right on average.
inline cpu::Moments moments(double rate1, double rate2, double bias2, double eps) {
  return {static_cast<float>(rate1), static_cast<float>(1.0 - rate2), static_cast<float>(rate2),
          static_cast<float>(1.0 / std::sqrt(bias2)), static_cast<float>(eps)};
}

class Step {
 public:
  Step(const Tensors& params, const Tensors& grads, const Tensors& exp_avgs,
       const Tensors* exp_avg_sqs, const Tensors& masters, const OptTensor& grad_scale,
       const OptTensor& seed, bool maximize)
      : tensors_(step_tensors(params, grads, exp_avgs, exp_avg_sqs, masters)) {
    check_seed(seed);
    const int64_t tasks = cut_into_tasks(tensors_, cpu::step_task);
    const double scale = grad_scale.has_value() ? number(*grad_scale, "grad_scale") : 1.0;
    list_ = {tensors_.data(), static_cast<int64_t>(tensors_.size()), tasks,
             data_or_null<int64_t>(seed), static_cast<float>(maximize ? -scale : scale)};
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  const cpu::StepList& list() const { return list_; }

 private:
  std::vector<StepTensor> tensors_;
  cpu::StepList list_{};
};

}  // namespace bigfast
