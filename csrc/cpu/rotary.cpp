// a' = a cos - b sin;  b' = b cos + a sin, for the pairs (a, b) of every head of a token: halves of
// its first 2 `pairs` features, or neighbours where interleaved. The other features are copied.
// Backward is the same with the sign of sin turned. Tokens are independent.
#include "cpu/rotary.h"

#include <initializer_list>

#include "cpu/parallel.h"
#include "cpu/rows.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// One head. cos and sin hold one entry per pair.
template <class T>
BIGFAST_INLINE void turn_halves(const T* x, T* y, const float* cos, const float* sin,
                                int64_t pairs) {
  columns(pairs, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
    const F a = load(x + i, lanes), b = load(x + pairs + i, lanes);
    const F c = load(cos + i, lanes), s = load(sin + i, lanes);
    store(y + i, a * c - b * s, lanes);
    store(y + pairs + i, fma(b, c, a * s), lanes);
  });
}

// One head. cos and sin hold one entry per feature, and sin has the sign of its term.
template <class T>
BIGFAST_INLINE void turn_neighbours(const T* x, T* y, const float* cos, const float* sin,
                                    int64_t pairs) {
  columns(2 * pairs, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
    const F v = load(x + i, lanes);
    const F turned = fma(swap_pairs(v), load(sin + i, lanes), v * load(cos + i, lanes));
    store(y + i, turned, lanes);
  });
}

template <class T>
void turn_tokens(const Rotary& a, int64_t begin, int64_t end) {
  const int64_t d = a.head_dim, rest = 2 * a.pairs;
  const float sign = a.inverse ? -1.0f : 1.0f;
  Scratch<float> cos(rest), sin(rest);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = a.positions[t] * a.pairs;
    for (int64_t i = 0; i < a.pairs; ++i) {
      const float c = a.cos[at + i], s = sign * a.sin[at + i];
      if (a.interleaved) {
        cos[2 * i] = cos[2 * i + 1] = c;
        sin[2 * i] = -s;
        sin[2 * i + 1] = s;
      } else {
        cos[i] = c;
        sin[i] = s;
      }
    }
    for (const RotaryHeads* x : {&a.q, &a.k}) {
      for (int64_t h = 0; h < x->heads; ++h) {
        const T* from = static_cast<const T*>(x->from) + t * x->token_stride + h * x->head_stride;
        T* to = static_cast<T*>(x->to) + (t * x->heads + h) * d;
        if (a.interleaved)
          turn_neighbours<T>(from, to, cos, sin, a.pairs);
        else
          turn_halves<T>(from, to, cos, sin, a.pairs);
        std::memcpy(to + rest, from + rest, (d - rest) * sizeof(T));
      }
    }
  }
}

}  // namespace

void rotary(const Rotary& a) noexcept {
  const int64_t step = rows_per_task(a.tokens, (a.q.heads + a.k.heads) * a.head_dim);
  dispatch(a.dtype, [&](auto tag) {
    auto body = [&](int64_t task) {
      const int64_t end = (task + 1) * step < a.tokens ? (task + 1) * step : a.tokens;
      turn_tokens<decltype(tag)>(a, task * step, end);
    };
    parallel_tasks((a.tokens + step - 1) / step, body);
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
