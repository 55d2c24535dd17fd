// dx = dy W and dW = dy^T x.
//
// dW sums over the rows of both, so dy is turned first; it is made in fp32, and stored as that
// where the weight is: to round it would be the largest error.
#include <type_traits>

#include "cpu/linear.h"
#include "cpu/linear.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <class T>
void put(const float* c, int64_t rows, int64_t n, T* to, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i)
    columns(n, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      store(to + i * ld + j, load(c + i * kPanel + j, lanes), lanes);
    });
}

}  // namespace

void linear_bwd_input(const LinearInput& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    with_operand<T>(a.out, [&](auto operand) {
      using E = decltype(operand);
      const auto weight =
          PackedB<E>::of(static_cast<const T*>(a.weight), a.weight_stride, a.in, a.out);
      multiply<E>(static_cast<const T*>(a.dy), a.out, a.rows, weight,
                  [&](int64_t row, int64_t rows, int64_t in, int64_t n, const float* c) {
                    put(c, rows, n, static_cast<T*>(a.dx) + row * a.in + in, a.in);
                  });
    });
  });
}

void linear_bwd_weight(const LinearWeight& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    using E = std::conditional_t<kPairs<T>, bf16, float>;
    const T* dy = static_cast<const T*>(a.dy);
    const int64_t ld = round_up(a.rows, F::W * kGroup<E>);
    Scratch<E> turned(a.out * ld);
    auto task = [&](int64_t i) {
      const int64_t first = i * kPanel;
      pack_transposed_rows<E>(dy + first, a.out, a.rows, least(kPanel, a.out - first),
                              turned + first * ld, ld);
    };
    parallel_tasks(parts(a.out, kPanel), task);
    const auto x = PackedB<E>::of(static_cast<const T*>(a.x), a.in, a.in, a.rows);
    dispatch(a.out_dtype, [&](auto out) {
      using Out = decltype(out);
      multiply<E>(static_cast<const E*>(turned), ld, a.out, x,
                  [&](int64_t row, int64_t rows, int64_t in, int64_t n, const float* c) {
                    put(c, rows, n, static_cast<Out*>(a.dweight) + row * a.in + in, a.in);
                  });
    });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
