// y = g s u with s = sigmoid(g), g = gate, u = up. Backward, elementwise too:
//   dgate = dy u s (1 + g (1 - s));   dup = dy g s
#include "cpu/swiglu.h"

#include "cpu/parallel.h"
#include "cpu/rows.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

BIGFAST_INLINE F sigmoid(F g) { return F(1.0f) / (F(1.0f) + exp(F(0.0f) - g)); }

// Calls f(row) for every row of a, in tasks.
template <class Args, class Body>
void for_rows(const Args& a, Body&& f) {
  const int64_t step = rows_per_task(a.rows, a.features);
  auto body = [&](int64_t task) {
    const int64_t end = (task + 1) * step < a.rows ? (task + 1) * step : a.rows;
    for (int64_t row = task * step; row < end; ++row) f(row);
  };
  parallel_tasks((a.rows + step - 1) / step, body);
}

}  // namespace

void swiglu_fwd(const SwigluForward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a, [&](int64_t row) {
      const T* gate = static_cast<const T*>(a.gate) + row * a.gate_stride;
      const T* up = static_cast<const T*>(a.up) + row * a.up_stride;
      T* y = static_cast<T*>(a.y) + row * a.features;
      columns(a.features, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
        const F g = load(gate + i, lanes);
        store(y + i, g * sigmoid(g) * load(up + i, lanes), lanes);
      });
    });
  });
}

void swiglu_bwd(const SwigluBackward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    for_rows(a, [&](int64_t row) {
      const T* dy = static_cast<const T*>(a.dy) + row * a.features;
      const T* gate = static_cast<const T*>(a.gate) + row * a.gate_stride;
      const T* up = static_cast<const T*>(a.up) + row * a.up_stride;
      T* dgate = static_cast<T*>(a.dgate) + row * a.features;
      T* dup = static_cast<T*>(a.dup) + row * a.features;
      columns(a.features, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
        const F g = load(gate + i, lanes), d = load(dy + i, lanes);
        const F s = sigmoid(g);
        store(dup + i, d * (g * s), lanes);
        store(dgate + i, d * load(up + i, lanes) * (s * fma(g, F(1.0f) - s, F(1.0f))), lanes);
      });
    });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
