// The moments of Adam's family, and where they point:
//   m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;  m / (sqrt(v) correction + eps)
#pragma once

#include "cpu/moments.h"
#include "cpu/multi_tensor.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

struct MomentVectors {
  float rate1;
  F beta2, rate2, correction, eps;

  explicit MomentVectors(const Moments& a)
      : rate1(a.rate1), beta2(a.beta2), rate2(a.rate2), correction(a.correction), eps(a.eps) {}

  BIGFAST_INLINE F second(F v, F g) const { return fma(beta2, v, rate2 * g * g); }

  BIGFAST_INLINE F direction(F m, F v) const { return m / fma(sqrt(v), correction, eps); }

  // Moves both moments of one vector of the piece, and gives the direction.
  template <class Piece, class Lanes>
  BIGFAST_INLINE F update(const Piece& piece, int64_t i, Lanes lanes) const {
    const F g = piece.gradient(i, lanes);
    const F m = lerp(load(piece.exp_avg + i, lanes), g, rate1);
    const F v = second(load(piece.exp_avg_sq + i, lanes), g);
    store(piece.exp_avg + i, m, lanes);
    store(piece.exp_avg_sq + i, v, lanes);
    return direction(m, v);
  }
};

// The step of AdamW: p = decay p - step_size direction.
template <class Piece>
BIGFAST_INLINE void adamw_piece(const Piece& piece, const Moments& a, float decay,
                                float step_size) {
  const MomentVectors moments(a);
  const F keep(decay), rate(step_size);
  piece.write([&](int64_t i, auto lanes) BIGFAST_LAMBDA {
    const F p = piece.weight(i, lanes);
    return p * keep - rate * moments.update(piece, i, lanes);
  });
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
