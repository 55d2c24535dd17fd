// swiglu on the CPU: c(g) = s = sigmoid(g), g c'(g) = g s (1 - s). The body is gated.inl.
#include "cpu/gated.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <class T>
BIGFAST_INLINE Gate silu_gate(F g) {
  // Past 2^160 the exponent itself would overflow; inf is right there, but not times s = 0.
  const F e = exp2(min(F(160.0f), g * F(-1.44269504088896341f)), T{});
  const F s = reciprocal(F(1.0f) + e, T{});
  // 1 - s = s e: subtracted, a coarse s would leave its error, times a g that may be large.
  return {s, g * s * (s * min(F(1e38f), e))};
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
