// swiglu on the CPU: c(g) = s = sigmoid(g), g c'(g) = g s (1 - s). The body is gated.inl.
#include "cpu/gated.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <class T>
BIGFAST_INLINE Gate silu_gate(F g) {
  // Of -|g|: c (1 - c) = tail once, without cancellation for either sign; 1 - s would leave of a
  // coarse s its error, and g may be large.
  const F e = exp2(abs(g) * F(-1.44269504088896341f), T{});
  const F once = reciprocal(F(1.0f) + e, T{}), tail = e * once;
  return {less(g, F(0.0f), tail, once), g * (tail * once)};
}

}  // namespace

void swiglu_fwd(const GatedForward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    gated_fwd<T>(a, [](F g) BIGFAST_LAMBDA { return silu_gate<T>(g); });
  });
}

void swiglu_bwd(const GatedBackward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    gated_bwd<T>(a, [](F g) BIGFAST_LAMBDA { return silu_gate<T>(g); });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
