// v = x + bias;  y = v c(v), with c = Phi, the normal distribution function, or in the tanh form
// c = sigmoid(2 u), u = sqrt(2/pi) (v + 0.044715 v^3). Backward: dx = dy (c + v c'); dbias = sum dx
//
// Rows are split into tasks by their number alone; each task has its own fp32 sum of dbias, and
// these are added by a tree.
#include "cpu/bias_gelu.h"

#include <type_traits>

#include "cpu/parallel.h"
#include "cpu/rows.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// Phi(-a) e^(a^2/2) for a >= 0, as t P(t) with t = 1 / (1 + p a), which is the form of Abramowitz
// and Stegun 7.1.26. P and p are fitted: what they leave of Phi is 4e-9, and, in the tail, 1e-3 of
// it; 4e-7 and 1e-2 where a result of bf16 asks for no more.
BIGFAST_INLINE F scaled_tail(F a, float) {
  const F t = F(1.0f) / fma(a, F(0.325f), F(1.0f));
  F p = F(0.0466360059f);
  p = fma(p, t, F(-0.235061257f));
  p = fma(p, t, F(0.377102278f));
  p = fma(p, t, F(-0.134269558f));
  p = fma(p, t, F(0.203134941f));
  p = fma(p, t, F(0.111135503f));
  p = fma(p, t, F(0.131322091f));
  return p * t;
}

BIGFAST_INLINE F scaled_tail(F a, bf16) {
  const F t = F(1.0f) / fma(a, F(0.3375f), F(1.0f));
  F p = F(-0.106473977f);
  p = fma(p, t, F(0.339502744f));
  p = fma(p, t, F(-0.0497930418f));
  p = fma(p, t, F(0.188997236f));
  p = fma(p, t, F(0.127767141f));
  return p * t;
}

// c(v) and v c'(v), to the accuracy that a result of type T needs.
struct Gate {
  F c, slope;
};

template <class T>
BIGFAST_INLINE Gate gate(F v, std::false_type) {
  const F e = exp2(v * v * F(-0.72134752044f));  // e^(-v^2/2)
  const F tail = e * scaled_tail(abs(v), T{});
  return {less(v, F(0.0f), tail, F(1.0f) - tail), v * F(0.3989422804f) * e};
}

template <class T>
BIGFAST_INLINE Gate gate(F v, std::true_type) {
  // Past 100 the square changes nothing but could overflow; the second operand keeps NaN.
  const F square = min(F(1e4f), v * v);
  // e = e^(-2 |u|) by 2 sqrt(2/pi) (1 + 0.044715 v^2) log2(e). So tail = sigmoid(-2 |u|), and
  // c (1 - c) = tail once, without cancellation for either sign.
  const F e = exp2(abs(v) * fma(square, F(-0.102943240f), F(-2.30220820f)));
  const F once = F(1.0f) / (F(1.0f) + e), tail = e * once;
  const F du = fma(square, F(0.214064449f), F(1.59576912f));
  return {less(v, F(0.0f), tail, once), v * (tail * once) * du};
}

template <class T, class Tanh>
void rows_fwd(const BiasGeluForward& a, const float* bias, int64_t begin, int64_t end) {
  const int64_t n = a.features;
  for (int64_t t = begin; t < end; ++t) {
    const T* x = static_cast<const T*>(a.x) + t * n;
    T* y = static_cast<T*>(a.y) + t * n;
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F v = load(x + i, lanes) + load(bias + i, lanes);
      store(y + i, v * gate<T>(v, Tanh{}).c, lanes);
    });
  }
}

template <class T, class Tanh>
void rows_bwd(const BiasGeluBackward& a, const float* bias, int64_t begin, int64_t end,
              float* dbias) {
  const int64_t n = a.features;
  for (int64_t t = begin; t < end; ++t) {
    const T* dy = static_cast<const T*>(a.dy) + t * n;
    const T* x = static_cast<const T*>(a.x) + t * n;
    T* dx = static_cast<T*>(a.dx) + t * n;
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const Gate g = gate<T>(load(x + i, lanes) + load(bias + i, lanes), Tanh{});
      const F d = load(dy + i, lanes) * (g.c + g.slope);
      store(dx + i, d, lanes);
      store(dbias + i, load(dbias + i, lanes) + d, lanes);
    });
  }
}

// Calls f with a value of the element type and std::true_type for the tanh form.
template <class Body>
void dispatch_gelu(DType dtype, bool tanh, Body&& f) {
  dispatch(dtype, [&](auto x) { tanh ? f(x, std::true_type{}) : f(x, std::false_type{}); });
}

// The bias in fp32: zeros where there is none.
void widen_bias(const void* bias, DType dtype, int64_t n, float* to) {
  if (bias)
    widen_row(bias, dtype, n, to);
  else
    std::memset(to, 0, n * sizeof(float));
}

}  // namespace

void bias_gelu_fwd(const BiasGeluForward& a) noexcept {
  const int64_t n = a.features, step = rows_per_task(a.tokens, n);
  Scratch<float> bias(n);
  widen_bias(a.bias, a.bias_dtype, n, bias);
  dispatch_gelu(a.dtype, a.tanh, [&](auto x, auto tanh) {
    auto body = [&](int64_t task) {
      const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
      rows_fwd<decltype(x), decltype(tanh)>(a, bias, begin, end);
    };
    parallel_tasks((a.tokens + step - 1) / step, body);
  });
}

void bias_gelu_bwd(const BiasGeluBackward& a) noexcept {
  const int64_t n = a.features, step = rows_per_task(a.tokens, n);
  const int64_t tasks = (a.tokens + step - 1) / step;
  Scratch<float> bias(n), partial((tasks + 1) * n);
  widen_bias(a.bias, a.bias_dtype, n, bias);
  std::memset(partial, 0, (tasks + 1) * n * sizeof(float));
  dispatch_gelu(a.dtype, a.tanh, [&](auto x, auto tanh) {
    auto body = [&](int64_t task) {
      const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
      rows_bwd<decltype(x), decltype(tanh)>(a, bias, begin, end, partial + (task + 1) * n);
    };
    parallel_tasks(tasks, body);
  });
  if (!a.dbias) return;
  sum_partials(partial, tasks, n);
  narrow_row(partial, n, a.dbias, a.bias_dtype);
}

}  // namespace bigfast::cpu::BIGFAST_ISA
