// geglu on the CPU: c(g) as in gelu.inl. The body is gated.inl.
#include "cpu/gated.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void geglu_fwd(const GatedForward& a) noexcept {
  dispatch_gelu(a.dtype, a.tanh, [&](auto tag, auto tanh) {
    using T = decltype(tag);
    gated_fwd<T>(a, [tanh](F g) BIGFAST_LAMBDA { return gelu_gate<T>(g, tanh); });
  });
}

void geglu_bwd(const GatedBackward& a) noexcept {
  dispatch_gelu(a.dtype, a.tanh, [&](auto tag, auto tanh) {
    using T = decltype(tag);
    gated_bwd<T>(a, [tanh](F g) BIGFAST_LAMBDA { return gelu_gate<T>(g, tanh); });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
