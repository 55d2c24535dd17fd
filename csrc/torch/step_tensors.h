// What the bindings of the optimizer steps share on every device: their lists, checked.
#pragma once

#include "args/multi_tensor.h"
#include "torch/tensor.h"

namespace bigfast {

using Tensors = std::vector<Tensor>;

// One number of a step that stands on the CPU.
inline double number(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.is_cpu() && t.numel() == 1, name, " must be one number on the CPU");
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

inline void check_seed(const OptTensor& seed) {
  if (!seed.has_value()) return;
  check_contiguous(*seed, "seed");
  STD_TORCH_CHECK(seed->scalar_type() == ScalarType::Long && seed->numel() == 1,
                  "seed must be one int64");
}

inline float* step_state(const Tensor& t, int64_t size, const char* name) {
  check_contiguous(t, name);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.numel() == size, name,
                  " must be float32, like its parameter in shape");
  return static_cast<float*>(data(t));
}

// The tensors of one step, but the empty ones, not yet cut into tasks. exp_avg_sqs: null in a step
// that has none.
inline std::vector<StepTensor> step_tensors(const Tensors& params, const Tensors& grads,
                                            const Tensors& exp_avgs, const Tensors* exp_avg_sqs,
                                            const Tensors& masters) {
  const size_t count = params.size();
  STD_TORCH_CHECK(grads.size() == count && exp_avgs.size() == count &&
                      (!exp_avg_sqs || exp_avg_sqs->size() == count) &&
                      (masters.empty() || masters.size() == count),
                  "lists must have one tensor per parameter");
  std::vector<StepTensor> rows;
  rows.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const int64_t size = params[i].numel();
    if (size == 0) continue;
    check_contiguous(params[i], "param");
    check_contiguous(grads[i], "grad");
    STD_TORCH_CHECK(grads[i].numel() == size, "grad must have its parameter's shape");
    rows.push_back({data(params[i]), data(grads[i]), step_state(exp_avgs[i], size, "exp_avg"),
                    exp_avg_sqs ? step_state((*exp_avg_sqs)[i], size, "exp_avg_sq") : nullptr,
                    masters.empty() ? nullptr : step_state(masters[i], size, "master"), size, 0,
                    static_cast<uint32_t>(i), dtype_of(params[i]), dtype_of(grads[i])});
  }
  return rows;
}

// Cuts them into tasks of up to `task` elements; how many these are.
inline int64_t cut_into_tasks(std::vector<StepTensor>& rows, int64_t task) {
  int64_t tasks = 0;
  for (StepTensor& t : rows) {
    t.first_task = tasks;
    tasks += (t.size + task - 1) / task;
  }
  return tasks;
}

}  // namespace bigfast
