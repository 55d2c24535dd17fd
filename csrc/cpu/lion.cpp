// g = scale grad;  c = m + (1 - beta1) (g - m);  m += (1 - beta2) (g - m);  p = decay p - lr
// sign(c)
//
// Bound by memory: 20 bytes per fp32 parameter.
#include "cpu/lion.h"

#include "cpu/multi_tensor.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void lion(const Lion& a) noexcept {
  each_piece(a.list, [&](const auto& piece) {
    const F decay(a.decay), up(a.lr), down(-a.lr), zero(0.0f);
    piece.write([&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F m = load(piece.exp_avg + i, lanes), g = piece.gradient(i, lanes);
      const F c = lerp(m, g, a.rate1);
      store(piece.exp_avg + i, lerp(m, g, a.rate2), lanes);
      // A NaN has no sign, as in torch; it stays in m.
      const F signed_lr = less(zero, c, up, less(c, zero, down, zero));
      return piece.weight(i, lanes) * decay - signed_lr;
    });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
