// layer_norm on the CPU; the body is norm.inl.
#include "cpu/norm.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void layer_norm_fwd(const NormForward& a) noexcept { norm_fwd<true>(a); }
void layer_norm_bwd(const NormBackward& a) noexcept { norm_bwd<true>(a); }

}  // namespace bigfast::cpu::BIGFAST_ISA
