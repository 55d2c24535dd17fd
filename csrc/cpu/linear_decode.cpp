// y = x W^T + b for a few rows of x.
//
// Bound by memory: W is read once, as it lies; to pack it, as products of many rows do, would cost
// more than to use it. An element of y is a dot product along a row of x and one of W. For one row
// of x, W goes by as one stream, which the prefetcher follows best. Several rows of x take tiles of
// 4 x 4, else reading x from L1 over and over would bind.
#include "cpu/linear_decode.h"

#include <type_traits>

#include "cpu/microkernel.inl"
#include "cpu/parallel.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int64_t kOutputs = 32;  // of a task: 48 KB of W at 768 inputs in bf16
constexpr int64_t kAhead = 8192;  // bytes: what memory delivers to a core while it looks for more

// Pairs are multiplied where the instruction set can, else what was read becomes fp32 first.
template <class T>
constexpr bool kPairs = kBf16Products && sizeof(T) == 2;

template <class T>
BIGFAST_INLINE F operand(const T* p) {
  if constexpr (kPairs<T>)
    return load_groups(p);
  else
    return load(p);
}

// y (kRows, kColumns), rows kOutputs apart, = x (kRows, in) W^T, W's rows `stride` apart.
template <int kRows, int kColumns, class T>
void tile(const T* x, const T* w, int64_t in, int64_t stride, float* y) {
  using E = std::conditional_t<kPairs<T>, bf16, float>;
  constexpr int64_t kStep = F::W * kGroup<E>;
  F acc[kRows][kColumns];
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kColumns>([&](int j) BIGFAST_LAMBDA { acc[i][j] = F(0.0f); });
  });
  int64_t k = 0;
  for (; k + kStep <= in; k += kStep) {
    F weights[kColumns];
    unrolled<kColumns>([&](int j) BIGFAST_LAMBDA {
      const T* at = w + j * stride + k;
      __builtin_prefetch(reinterpret_cast<const char*>(at) + kAhead);  // it never faults
      weights[j] = operand(at);
    });
    unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
      const F values = operand(x + i * in + k);
      unrolled<kColumns>(
          [&](int j) BIGFAST_LAMBDA { acc[i][j] = step(values, weights[j], acc[i][j], E{}); });
    });
  }
  for (; k < in; k += F::W) {
    const int lanes = static_cast<int>(in - k < F::W ? in - k : F::W);
    unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
      const F values = load(x + i * in + k, lanes);
      unrolled<kColumns>([&](int j) BIGFAST_LAMBDA {
        acc[i][j] = fma(values, load(w + j * stride + k, lanes), acc[i][j]);
      });
    });
  }
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kColumns>([&](int j) BIGFAST_LAMBDA { y[i * kOutputs + j] = sum(acc[i][j]); });
  });
}

template <int kColumns, class T>
void all_rows(const T* x, const T* w, int64_t rows, int64_t in, int64_t stride, float* y) {
  for (; rows >= 4; rows -= 4, x += 4 * in, y += 4 * kOutputs)
    tile<4, kColumns>(x, w, in, stride, y);
  for (; rows >= 2; rows -= 2, x += 2 * in, y += 2 * kOutputs)
    tile<2, kColumns>(x, w, in, stride, y);
  if (rows > 0) tile<1, kColumns>(x, w, in, stride, y);
}

template <class T>
void outputs(const LinearDecode& a, int64_t first, int64_t n) {
  const T *x = static_cast<const T*>(a.x), *bias = static_cast<const T*>(a.bias);
  const T* w = static_cast<const T*>(a.weight) + first * a.weight_stride;
  Scratch<float> sums(a.rows * kOutputs);
  int64_t j = 0;
  if (a.rows > 1)
    for (; j + 4 <= n; j += 4)
      all_rows<4>(x, w + j * a.weight_stride, a.rows, a.in, a.weight_stride, sums + j);
  for (; j < n; ++j)
    all_rows<1>(x, w + j * a.weight_stride, a.rows, a.in, a.weight_stride, sums + j);
  for (int64_t i = 0; i < a.rows; ++i)
    columns(n, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      F y = load(sums + i * kOutputs + j, lanes);
      if (bias) y = y + load(bias + first + j, lanes);
      store(static_cast<T*>(a.y) + i * a.out + first + j, y, lanes);
    });
}

}  // namespace

void linear_decode(const LinearDecode& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    auto body = [&](int64_t task) {
      const int64_t first = task * kOutputs;
      outputs<T>(a, first, a.out - first < kOutputs ? a.out - first : kOutputs);
    };
    parallel_tasks(a.rows ? (a.out + kOutputs - 1) / kOutputs : 0, body);
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
