// What kernels over rows of features share: sums in four chains, conversion of rows, the split into
// tasks, and the sum of the tasks' partial results.
#pragma once

#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// Four chains, so that additions overlap; added in a fixed order.
struct Sum {
  F part[4] = {F(0.0f), F(0.0f), F(0.0f), F(0.0f)};
  BIGFAST_INLINE float total() const { return sum((part[0] + part[1]) + (part[2] + part[3])); }
};

// f(i, lanes, k): as `columns`, with k = 0, 1, 2, 3, 0, ... to name one of four accumulators.
template <class Body>
BIGFAST_INLINE void columns4(int64_t n, Body&& f) {
  int64_t i = 0;
  for (; i + 4 * F::W <= n; i += 4 * F::W) {
    f(i, Full{}, 0);
    f(i + F::W, Full{}, 1);
    f(i + 2 * F::W, Full{}, 2);
    f(i + 3 * F::W, Full{}, 3);
  }
  int k = 0;
  for (; i + F::W <= n; i += F::W) f(i, Full{}, k++);
  if (i < n) f(i, Part{static_cast<int>(n - i)}, k);
}

template <class W>
void widen_row(const void* from, int64_t n, float* to) {
  columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
    store(to + i, load(static_cast<const W*>(from) + i, lanes), lanes);
  });
}

inline void widen_row(const void* from, DType dtype, int64_t n, float* to) {
  dispatch(dtype, [&](auto w) { widen_row<decltype(w)>(from, n, to); });
}

inline void narrow_row(const float* from, int64_t n, void* to, DType dtype) {
  dispatch(dtype, [&](auto tag) {
    using W = decltype(tag);
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      store(static_cast<W*>(to) + i, load(from + i, lanes), lanes);
    });
  });
}

// Enough rows that a task outweighs its start, but few, since sums over the rows of a task lose
// bits as they grow; the split depends on the shape alone.
inline int64_t rows_per_task(int64_t tokens, int64_t features) {
  const int64_t wanted = 1 + 8192 / (features + 1);
  const int64_t least = wanted < 64 ? wanted : 64;
  const int64_t even = (tokens + 255) / 256;
  return even > least ? even : least;
}

// Partial sums (1 + tasks, n), row 0 zeros: row 0 becomes the sum of all, by a tree, in which
// errors grow with the logarithm of the number of tasks.
inline void sum_partials(float* partial, int64_t tasks, int64_t n) {
  for (int64_t stride = 1; stride <= tasks; stride *= 2) {
    for (int64_t task = 0; task + stride <= tasks; task += 2 * stride) {
      float* to = partial + task * n;
      const float* from = to + stride * n;
      columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
        store(to + i, load(to + i, lanes) + load(from + i, lanes), lanes);
      });
    }
  }
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
