// What the optimizer steps share: which piece of which tensor a task has, of which types, and how
// the new parameter is rounded and written. A step itself is a formula for one vector of elements.
#pragma once

#include "cpu/multi_tensor.h"
#include "cpu/parallel.h"
#include "cpu/philox.h"
#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// from + rate (to - from), as torch counts it: from the nearer end, so that a rate of 1 gives `to`.
BIGFAST_INLINE F lerp(F from, F to, float rate) {
  return rate < 0.5f ? fma(F(rate), to - from, from) : fma(F(rate - 1.0f), to - from, to);
}

enum class Target { param, master, stochastic };  // what takes the update, and how bf16 is rounded

// One task's part of one tensor, of type P with gradients of type G.
template <class P, class G, Target kTarget>
struct Piece {
  P* param;  // (n), as all that follow
  const G* grad;
  float *exp_avg, *exp_avg_sq, *master;
  int64_t n, begin;  // elements, of which `begin` of the tensor come before
  int64_t tensor, task;
  uint32_t plane;
  uint64_t key;
  F grad_scale;

  Piece(const StepList& list, int64_t which, int64_t which_task)
      : tensor(which), task(which_task), grad_scale(list.grad_scale) {
    const StepTensor& t = list.tensors[tensor];
    begin = (task - t.first_task) * step_task;
    n = t.size - begin < step_task ? t.size - begin : step_task;
    param = static_cast<P*>(t.param) + begin;
    grad = static_cast<const G*>(t.grad) + begin;
    exp_avg = t.exp_avg + begin;
    exp_avg_sq = t.exp_avg_sq ? t.exp_avg_sq + begin : nullptr;
    master = kTarget == Target::master ? t.master + begin : nullptr;
    plane = t.plane;
    key = kTarget == Target::stochastic ? static_cast<uint64_t>(*list.seed) : 0;
  }

  template <class Lanes>
  BIGFAST_INLINE F gradient(int64_t i, Lanes lanes) const {
    return load(grad + i, lanes) * grad_scale;
  }

  template <class Lanes>
  BIGFAST_INLINE F weight(int64_t i, Lanes lanes) const {
    if constexpr (kTarget == Target::master)
      return load(master + i, lanes);
    else
      return load(param + i, lanes);
  }

  // p = f(i, lanes) for every vector.
  template <class Body>
  BIGFAST_INLINE void write(Body&& f) const {
    if constexpr (kTarget == Target::stochastic) {
      constexpr int64_t kRun = 8 * U::W;  // elements that U::W calls have numbers for
      static_assert(step_task % kRun == 0);
      uint16_t numbers[kRun];
      for (int64_t run = 0; run < n; run += kRun) {
        element_numbers(begin + run, plane, key, numbers);
        columns(n - run < kRun ? n - run : kRun, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
          const F p = f(run + i, lanes);
          store(param + run + i, round_stochastically(p, load(numbers + i)), lanes);
        });
      }
    } else {
      columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
        const F p = f(i, lanes);
        if constexpr (kTarget == Target::master) store(master + i, p, lanes);
        store(param + i, p, lanes);
      });
    }
  }
};

// f(piece) for one task of the list.
template <class Body>
void with_piece(const StepList& list, int64_t task, Body&& f) {
  int64_t low = 0, high = list.count - 1;  // the last tensor that starts at or before this task
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (list.tensors[middle].first_task <= task)
      low = middle;
    else
      high = middle - 1;
  }
  const StepTensor& t = list.tensors[low];
  dispatch(t.param_dtype, [&](auto param) {
    dispatch(t.grad_dtype, [&](auto grad) {
      using P = decltype(param);
      using G = decltype(grad);
      if (t.master) return f(Piece<P, G, Target::master>(list, low, task));
      if constexpr (sizeof(P) == sizeof(bf16)) {
        if (list.seed) return f(Piece<P, G, Target::stochastic>(list, low, task));
      }
      f(Piece<P, G, Target::param>(list, low, task));
    });
  });
}

// f(piece) for every task of the list.
template <class Body>
void each_piece(const StepList& list, Body&& f) {
  auto body = [&](int64_t task) { with_piece(list, task, f); };
  parallel_tasks(list.tasks, body);
}

// first(piece) for all tasks of a tensor, then between(tensor), then second(piece) for its tasks
// again. Tensors go in groups that the last cache holds, and the second pass backwards, so that of
// a larger tensor it begins with what the first has just left there.
template <class First, class Between, class Second>
void two_passes(const StepList& list, First&& first, Between&& between, Second&& second) {
  constexpr int64_t kGroup = 1 << 20;  // elements, unless one tensor has more
  for (int64_t begin = 0, end = 0; begin < list.count; begin = end) {
    int64_t elements = 0;
    do elements += list.tensors[end++].size;
    while (end < list.count && elements + list.tensors[end].size <= kGroup);
    const int64_t from = list.tensors[begin].first_task;
    const int64_t to = end < list.count ? list.tensors[end].first_task : list.tasks;
    auto once = [&](int64_t task) { with_piece(list, from + task, first); };
    parallel_tasks(to - from, once);
    for (int64_t i = begin; i < end; ++i) between(i);
    auto again = [&](int64_t task) { with_piece(list, from + task, second); };
    parallel_tasks(to - from, again, true);
  }
}

// sums[k] = the sum over n elements of what f(i, lanes, s) adds to s[k]: fp32 lanes over runs of
// elements, runs in fp64 in order. A square below 2^-149 is lost, one from 2^128 on infinite.
template <int kSums, class Body>
BIGFAST_INLINE void add_up(int64_t n, double* sums, Body&& f) {
  constexpr int64_t kRun = 4096;
  for (int k = 0; k < kSums; ++k) sums[k] = 0.0;
  for (int64_t run = 0; run < n; run += kRun) {
    F s[kSums];
    for (int k = 0; k < kSums; ++k) s[k] = F(0.0f);
    columns(n - run < kRun ? n - run : kRun,
            [&](int64_t i, auto lanes) BIGFAST_LAMBDA { f(run + i, lanes, s); });
    for (int k = 0; k < kSums; ++k) sums[k] += static_cast<double>(sum(s[k]));
  }
}

// totals[k] = the sum over the tasks of one tensor of sums (tasks, kSums), in order.
template <int kSums>
void tensor_total(const StepTensor& t, const double* sums, double* totals) {
  const int64_t tasks = (t.size + step_task - 1) / step_task;
  for (int k = 0; k < kSums; ++k) {
    totals[k] = 0.0;
    for (int64_t i = 0; i < tasks; ++i) totals[k] += sums[(t.first_task + i) * kSums + k];
  }
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
