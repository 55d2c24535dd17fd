// rms = sqrt(mean(g^2 / max(v, eps^2))), v being this step's;  rate = lr / max(1, rms)
// then adamw with that rate
//
// Two passes over a few tensors at a time: the first only reads, and leaves each task's sum, which
// are added in the order of the tasks; the second is adamw's. 36 bytes per fp32 parameter, of which
// 28 come from memory and the others, mostly, from cache.
#include "cpu/stable_adamw.h"

#include <cmath>

#include "cpu/moments.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void stable_adamw(const StableAdamW& a) noexcept {
  auto sums = [&](const auto& piece) {
    const MomentVectors moments(a.moments);
    const F least(a.moments.eps * a.moments.eps);
    add_up<1>(piece.n, a.sums + piece.task, [&](int64_t i, auto lanes, F* s) BIGFAST_LAMBDA {
      const F g = piece.gradient(i, lanes);
      const F v = moments.second(load(piece.exp_avg_sq + i, lanes), g);
      s[0] = s[0] + only(g * g / max(least, v), lanes);
    });
  };
  auto rate = [&](int64_t i) {
    double total;
    tensor_total<1>(a.list.tensors[i], a.sums, &total);
    const double rms = std::sqrt(total / static_cast<double>(a.list.tensors[i].size));
    a.rates[i] = rms > 1.0 ? a.lr / rms : a.lr;  // NaN clips nothing
  };
  auto step = [&](const auto& piece) {
    const double rate = a.rates[piece.tensor];
    adamw_piece(piece, a.moments, static_cast<float>(1.0 - rate * a.weight_decay),
                static_cast<float>(rate));
  };
  two_passes(a.list, sums, rate, step);
}

}  // namespace bigfast::cpu::BIGFAST_ISA
