// gelu(v) = v c(v), with c = Phi, the normal distribution function, or in the tanh form
// c = sigmoid(2 u), u = sqrt(2/pi) (v + 0.044715 v^3).
#pragma once

#include <type_traits>

#include "cpu/types.h"
#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// c(v) and v c'(v), of activations v c(v).
struct Gate {
  F c, slope;
};

// Phi(-a) e^(a^2/2) for a >= 0, as t P(t) with t = 1 / (1 + p a), which is the form of Abramowitz
// and Stegun 7.1.26. P and p are fitted: what they leave of Phi is 4e-9, and, in the tail, 1e-3 of
// it; 4e-7 and 1e-2 where a result of bf16 asks for no more.
BIGFAST_INLINE F scaled_tail(F a, float) {
  const F t = reciprocal(fma(a, F(0.325f), F(1.0f)), float{});
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
  const F t = reciprocal(fma(a, F(0.3375f), F(1.0f)), bf16{});
  F p = F(-0.106473977f);
  p = fma(p, t, F(0.339502744f));
  p = fma(p, t, F(-0.0497930418f));
  p = fma(p, t, F(0.188997236f));
  p = fma(p, t, F(0.127767141f));
  return p * t;
}

// To the accuracy that a result of type T needs.
template <class T>
BIGFAST_INLINE Gate gelu_gate(F v, std::false_type) {
  const F e = exp2(v * v * F(-0.72134752044f), T{});  // e^(-v^2/2)
  const F tail = e * scaled_tail(abs(v), T{});
  return {less(v, F(0.0f), tail, F(1.0f) - tail), v * F(0.3989422804f) * e};
}

template <class T>
BIGFAST_INLINE Gate gelu_gate(F v, std::true_type) {
  // Past 100 the square changes nothing but could overflow; the second operand keeps NaN.
  const F square = min(F(1e4f), v * v);
  // e = e^(-2 |u|) by 2 sqrt(2/pi) (1 + 0.044715 v^2) log2(e). So tail = sigmoid(-2 |u|), and
  // c (1 - c) = tail once, without cancellation for either sign.
  const F e = exp2(abs(v) * fma(square, F(-0.102943240f), F(-2.30220820f)), T{});
  const F once = reciprocal(F(1.0f) + e, T{}), tail = e * once;
  const F du = fma(square, F(0.214064449f), F(1.59576912f));
  return {less(v, F(0.0f), tail, once), v * (tail * once) * du};
}

// gelu(v), to the accuracy that a result of type T needs.
template <class T, class Tanh>
BIGFAST_INLINE F gelu(F v, Tanh tanh) {
  if constexpr (Tanh::value || sizeof(T) != sizeof(bf16)) return v * gelu_gate<T>(v, tanh).c;
  // max(v, 0) - a Phi(-a), a = |v|. The logarithm of Phi is nearly a parabola: fitted over a <= 5,
  // this one leaves 2e-4 of Phi, and of the tail beyond, of which 1e-7 is left, some percent. A
  // third fewer multiplications than c takes, and those are what there is most of.
  const F a = min(F(13.0f), abs(v));  // beyond, nothing is left
  F p = fma(F(-2.69917861e-4f), a, F(5.29734868e-3f));
  p = fma(p, a, F(-4.63193342e-2f));
  p = fma(p, a, F(-4.66907478e-1f));
  p = fma(p, a, F(-1.14778887f));
  p = fma(p, a, F(-1.00022835f));
  const F above = v - min(F(0.0f), v);  // max(v, 0), but NaN of -inf, as -inf 0 is
  return above - a * exp2_coarse_bounded(p);
}

// Calls f with a value of the element type and std::true_type for the tanh form.
template <class Body>
void dispatch_gelu(DType dtype, bool tanh, Body&& f) {
  dispatch(dtype, [&](auto x) { tanh ? f(x, std::true_type{}) : f(x, std::false_type{}); });
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
