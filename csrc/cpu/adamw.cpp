// g = scale grad;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
// p = decay p - step_size m / (sqrt(v) correction + eps)
//
// Bound by memory: all is read once and written once, 28 bytes per fp32 parameter. What is written
// was read just before, so that non-temporal stores would save nothing.
#include "cpu/adamw.h"

#include "cpu/moments.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void adamw(const AdamW& a) noexcept {
  each_piece(a.list,
             [&](const auto& piece) { adamw_piece(piece, a.moments, a.decay, a.step_size); });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
