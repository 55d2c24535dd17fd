// y = g c(g) u for an activation g c(g), g = gate, u = up. Backward, elementwise too:
//   dgate = dy u (c + g c');   dup = dy g c
#pragma once

#include "cpu/gated.h"
#include "cpu/gelu.inl"
#include "cpu/parallel.h"
#include "cpu/rows.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

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

// gate(g) gives the activation's Gate.
template <class T, class Activation>
void gated_fwd(const GatedForward& a, Activation gate_of) {
  for_rows(a, [&](int64_t row) {
    const T* gate = static_cast<const T*>(a.gate) + row * a.gate_stride;
    const T* up = static_cast<const T*>(a.up) + row * a.up_stride;
    T* y = static_cast<T*>(a.y) + row * a.features;
    columns(a.features, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F g = load(gate + i, lanes);
      store(y + i, g * gate_of(g).c * load(up + i, lanes), lanes);
    });
  });
}

template <class T, class Activation>
void gated_bwd(const GatedBackward& a, Activation gate_of) {
  for_rows(a, [&](int64_t row) {
    const T* dy = static_cast<const T*>(a.dy) + row * a.features;
    const T* gate = static_cast<const T*>(a.gate) + row * a.gate_stride;
    const T* up = static_cast<const T*>(a.up) + row * a.up_stride;
    T* dgate = static_cast<T*>(a.dgate) + row * a.grad_stride;
    T* dup = static_cast<T*>(a.dup) + row * a.grad_stride;
    columns(a.features, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F g = load(gate + i, lanes), d = load(dy + i, lanes);
      const Gate s = gate_of(g);
      store(dup + i, d * (g * s.c), lanes);
      store(dgate + i, d * load(up + i, lanes) * (s.c + s.slope), lanes);
    });
  });
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
