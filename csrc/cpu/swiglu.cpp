// swiglu on the CPU: c(g) = s = sigmoid(g), g c'(g) = g s (1 - s). The body is gated.inl.
#include "cpu/gated.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

BIGFAST_INLINE Gate silu_gate(F g) {
  const F s = F(1.0f) / (F(1.0f) + exp(F(0.0f) - g));
  return {s, g * s * (F(1.0f) - s)};
}

}  // namespace

void swiglu_fwd(const GatedForward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    gated_fwd<decltype(tag)>(a, [](F g) BIGFAST_LAMBDA { return silu_gate(g); });
  });
}

void swiglu_bwd(const GatedBackward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    gated_bwd<decltype(tag)>(a, [](F g) BIGFAST_LAMBDA { return silu_gate(g); });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
