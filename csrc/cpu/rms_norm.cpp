// rms_norm on the CPU; the body is norm.inl.
#include "cpu/norm.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void rms_norm_fwd(const NormForward& a) noexcept { norm_fwd<false>(a); }
void rms_norm_bwd(const NormBackward& a) noexcept { norm_bwd<false>(a); }

}  // namespace bigfast::cpu::BIGFAST_ISA
