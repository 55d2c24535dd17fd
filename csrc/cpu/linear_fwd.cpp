// y = x W^T + b
//
// W is read as it lies and x is packed: y^T = W x^T. Products of few rows are bound by memory, or
// not far from it, and to arrange W in a copy first, as is usual, would take longer than to use it.
// For one row of x the panel would be empty but for a lane: there each element of y is a dot
// product, and W goes by as one stream, which the prefetcher follows best.
#include <type_traits>

#include "cpu/linear.h"
#include "cpu/linear.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int64_t kAhead = 8192;  // bytes: what memory delivers to a core while it looks for more

template <class T>
float dot(const T* x, const T* w, int64_t in) {
  using E = std::conditional_t<kPairs<T>, bf16, float>;
  const auto operand = [](const T* p) BIGFAST_LAMBDA {
    if constexpr (kPairs<T>)
      return load_groups(p);
    else
      return load(p);
  };
  F acc(0.0f);
  int64_t k = 0;
  for (; k + F::W * kGroup<E> <= in; k += F::W * kGroup<E>) {
    prefetch(w + k, kAhead);
    acc = step(operand(x + k), operand(w + k), acc, E{});
  }
  for (; k < in; k += F::W) {
    const int lanes = static_cast<int>(least(in - k, F::W));
    acc = fma(load(x + k, lanes), load(w + k, lanes), acc);
  }
  return sum(acc);
}

template <class T>
void one_row(const Linear& a, const T* bias) {
  auto task = [&](int64_t i) {
    const int64_t first = i * kBlockRows, n = least(kBlockRows, a.out - first);
    const T* w = static_cast<const T*>(a.weight) + first * a.weight_stride;
    float sums[kBlockRows];
    for (int64_t j = 0; j < n; ++j)
      sums[j] = dot(static_cast<const T*>(a.x), w + j * a.weight_stride, a.in);
    columns(n, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      const F more = bias ? load(bias + first + j, lanes) : F(0.0f);
      store(static_cast<T*>(a.y) + first + j, load(sums + j, lanes) + more, lanes);
    });
  };
  parallel_tasks(parts(a.out, kBlockRows), task);
}

// y (rows, n), of y^T (n, rows), and the bias.
template <class T>
void put_transposed(const float* c, int64_t rows, int64_t n, const T* bias, T* y, int64_t ld) {
  for (int64_t i = 0; i < rows; i += F::W)
    columns(n, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      F block[F::W];
      for (int u = 0; u < F::W; ++u)
        block[u] = j + u < n ? load(c + (j + u) * kPanel + i) : F(0.0f);
      transpose(block);
      const F more = bias ? load(bias + j, lanes) : F(0.0f);
      for (int u = 0; u < F::W && i + u < rows; ++u)
        store(y + (i + u) * ld + j, block[u] + more, lanes);
    });
}

}  // namespace

void linear(const Linear& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    const T* bias = static_cast<const T*>(a.bias);
    if (a.rows == 1) return one_row<T>(a, bias);
    with_operand<T>(a.in, [&](auto operand) {
      using E = decltype(operand);
      const auto x = PackedB<E>::of_transposed(static_cast<const T*>(a.x), a.in, a.rows, a.in);
      multiply<E>(static_cast<const T*>(a.weight), a.weight_stride, a.out, x,
                  [&](int64_t out, int64_t n, int64_t row, int64_t rows, const float* c) {
                    put_transposed(c, rows, n, bias ? bias + out : nullptr,
                                   static_cast<T*>(a.y) + row * a.out + out, a.out);
                  });
    });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
