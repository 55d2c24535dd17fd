// What the bindings of the optimizer steps share on CUDA: their lists, as tables on the device.
//
// A table is written once, and again where an address, a size or a dtype has changed: a step whose
// tensors stay where they are costs the host little, copies nothing and waits for nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>
#include <tuple>

#include "cuda/moments.h"
#include "cuda/multi_tensor.h"
#include "torch/device.h"
#include "torch/step_tensors.h"

namespace bigfast {

// A table, what it was made of, and where it was written.
struct KeptTable {
  std::vector<StepTensor> rows;
  int32_t device;
  void* stream;
  Tensor memory;
};

class Tables {
 public:
  static Tables& all() {
    static Tables& tables = *new Tables;  // not destroyed: at the end CUDA may be gone before
    return tables;
  }

  // Of rows, cut into chunks of which there are `blocks`.
  Tensor of(const std::vector<StepTensor>& rows, int64_t blocks, void* stream,
            const Tensor& beside) {
    const int32_t device = beside.is_cpu() ? 0 : beside.get_device_index();
    const std::lock_guard<std::mutex> guard(mutex_);
    const bool captures = cuda::captures(stream);
    for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
      // To a graph one of another stream will do: its replay comes after the step that this one was
      // written for, which has changed the same parameters.
      const bool ordered = captures || kept->stream == stream;
      if (!ordered || kept->device != device || kept->rows != rows) continue;
      kept_.splice(kept_.begin(), kept_, kept);
      if (captures) captured_.push_back(kept->memory);
      return kept->memory;
    }
    const Tensor memory = made(rows, blocks, stream, beside);
    if (captures) {  // written when the graph is replayed: no other step may rely on that
      captured_.push_back(memory);
      return memory;
    }
    kept_.push_front({rows, device, stream, memory});
    if (kept_.size() > kMost) kept_.pop_back();
    return memory;
  }

 private:
  static Tensor made(const std::vector<StepTensor>& rows, int64_t blocks, void* stream,
                     const Tensor& beside) {
    const auto count = static_cast<int64_t>(rows.size());
    Tensor memory = empty({cuda::table_bytes(count, blocks)}, ScalarType::Byte, beside);
    cuda::write_table(rows, cuda::table_in(data(memory), count, blocks), stream);
    return memory;
  }

  // Of some optimizers, and of gradients that have a few places in turn.
  static constexpr size_t kMost = 64;
  std::mutex mutex_;
  std::list<KeptTable> kept_;     // the last used first
  std::vector<Tensor> captured_;  // graphs read them at each replay: they stay
};

// Where it stands on the device; or, read now, one that stands on the CPU, or the one of an absent
// tensor. In the emulator, where all stands on the CPU, fp64 is read now: Python's numbers are
// that.
inline cuda::Number step_number(const OptTensor& t, const char* name, double absent = 0.0) {
  if (!t.has_value()) return {nullptr, cuda::NumberType::f64, absent};
  const ScalarType dtype = t->scalar_type();
#if defined(BIGFAST_EMULATED)
  const bool on_cpu = dtype == ScalarType::Double;
#else
  const bool on_cpu = t->is_cpu();
#endif
  if (on_cpu) return {nullptr, cuda::NumberType::f64, number(*t, name)};
  check_contiguous(*t, name);
  STD_TORCH_CHECK(t->numel() == 1, name, " must be one number");
  STD_TORCH_CHECK(
      dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Long, name,
      " must be float32, float64 or int64");
  const auto type = dtype == ScalarType::Float    ? cuda::NumberType::f32
                    : dtype == ScalarType::Double ? cuda::NumberType::f64
                                                  : cuda::NumberType::i64;
  return {data(*t), type, 0.0};
}

inline cuda::Moments moments(double beta1, double beta2, double eps) {
  return {std::log(beta1),
          std::log(beta2),
          static_cast<float>(1.0 - beta1),
          static_cast<float>(beta2),
          static_cast<float>(1.0 - beta2),
          static_cast<float>(eps)};
}

// One step's tensors, on the device and the current stream of its parameters while this lives.
class Step {
 public:
  Step(const Tensors& params, const Tensors& grads, const Tensors& exp_avgs,
       const Tensors& exp_avg_sqs, const Tensors& masters, const OptTensor& grad_scale,
       const OptTensor& found_inf, const OptTensor& seed, bool maximize)
      : beside_(params.at(0)), current_(beside_) {
    check_seed(seed);
    auto rows = step_tensors(params, grads, exp_avgs, &exp_avg_sqs, masters);
    std::stable_sort(rows.begin(), rows.end(), [](const StepTensor& a, const StepTensor& b) {
      return std::tie(a.param_dtype, a.grad_dtype) < std::tie(b.param_dtype, b.grad_dtype);
    });
    const int64_t blocks = cut_into_tasks(rows, cuda::kChunk);
    STD_TORCH_CHECK(blocks <= INT32_MAX, "more elements than a launch takes");
    groups_ = cuda::groups_of(rows);
    list_.table = cuda::table_in(nullptr, static_cast<int64_t>(rows.size()), blocks);
    list_.seed = data_or_null<int64_t>(seed);
    list_.grad_scale = step_number(grad_scale, "grad_scale", 1.0);
    list_.found_inf = step_number(found_inf, "found_inf");
    list_.sign = maximize ? -1.0f : 1.0f;
    if (rows.empty()) return;
    memory_ = Tables::all().of(rows, blocks, stream(), beside_);
    list_.table = cuda::table_in(data(*memory_), list_.table.count, blocks);
  }

  const cuda::StepList& list() const { return list_; }
  const std::vector<cuda::StepGroup>& groups() const { return groups_; }
  void* stream() const { return current_.stream(); }
  // Uninitialised; once it is gone, the allocator gives it to nobody but later work of the stream.
  Tensor scratch(int64_t floats) const { return empty({floats}, ScalarType::Float, beside_); }

 private:
  Tensor beside_;
  Current current_;
  std::vector<cuda::StepGroup> groups_;
  OptTensor memory_;
  cuda::StepList list_{};
};

}  // namespace bigfast
