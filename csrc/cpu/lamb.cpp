// m, v and their direction as in adamw;  u = unbias1 direction + weight_decay p
// p -= lr |p| / |u| u, with a ratio of 1 where a norm is 0
//
// Two passes over a few tensors at a time. The first moves the moments and leaves each task's sums
// of squares, which are added in the order of the tasks; the second computes u again from m, v and
// p, which for bert-base takes 15 % less time than writing and reading u, and none of its memory.
// 40 bytes per fp32 parameter, of which 28 come from memory and the others, mostly, from cache.
#include "cpu/lamb.h"

#include <cmath>

#include "cpu/moments.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void lamb(const Lamb& a) noexcept {
  const MomentVectors moments(a.moments);
  const F unbias1(a.unbias1), weight_decay(a.weight_decay);
  auto sums = [&](const auto& piece) {
    add_up<2>(piece.n, a.sums + 2 * piece.task, [&](int64_t i, auto lanes, F* s) BIGFAST_LAMBDA {
      const F p = piece.weight(i, lanes);
      const F direction = only(moments.update(piece, i, lanes), lanes);
      const F u = unbias1 * direction + weight_decay * p;
      s[0] = fma(p, p, s[0]);
      s[1] = fma(u, u, s[1]);
    });
  };
  auto rate = [&](int64_t i) {
    double squares[2];
    tensor_total<2>(a.list.tensors[i], a.sums, squares);
    const bool adapts = squares[0] > 0.0 && squares[1] > 0.0;
    const double ratio = adapts ? std::sqrt(squares[0]) / std::sqrt(squares[1]) : 1.0;
    a.rates[i] = static_cast<float>(a.lr * ratio);
  };
  auto step = [&](const auto& piece) {
    const F rate(a.rates[piece.tensor]);
    piece.write([&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F p = piece.weight(i, lanes);
      const F m = load(piece.exp_avg + i, lanes), v = load(piece.exp_avg_sq + i, lanes);
      const F u = unbias1 * moments.direction(m, v) + weight_decay * p;
      return p - rate * u;
    });
  };
  two_passes(a.list, sums, rate, step);
}

}  // namespace bigfast::cpu::BIGFAST_ISA
