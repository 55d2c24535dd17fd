// lse = log(sum_v exp(x_v));   loss = lse - (1 - e) x_target - e mean(x) + z lse^2
// dx_v = dloss ((1 + 2 z lse) softmax(x)_v - (1 - e) [v = target] - e / V)
//
// with label smoothing e and z-loss z, mostly 0.
// A row is read once for its sum of exponentials, which are taken of x - shift. The shift is the
// largest logit of the first block; a block whose sum shows a logit far above it raises it, and is
// read again while it is in L1. Shift and sum are kept apart: log(sum) + shift, rounded, would cost
// large logits their probabilities.
#pragma once

#include "cpu/cross_entropy.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr int64_t kBlock = 2048;  // columns: 8 KB at most

constexpr float kMostSum = 1e12f;  // of a block; more: a logit lies far above the shift

struct RowStats {
  float shift = -kInfinity;
  float sum = 0.0f;
  float total = 0.0f;  // of the logits themselves; for label smoothing
};

// e^x of a logit less its shift. The rounding of x log2(e) grows with -x, but e^x falls faster.
constexpr float kLog2E = 1.44269504088896341f;
BIGFAST_INLINE F exp_logit(F x) { return exp2(x * F(kLog2E)); }
// The same for gradients that are stored as X.
BIGFAST_INLINE F exp_gradient(F x, float) { return exp_logit(x); }
BIGFAST_INLINE F exp_gradient(F x, bf16) { return exp2_coarse(x * F(kLog2E)); }

BIGFAST_INLINE float exp(float x) { return sum(first_lanes(exp(F(x)), 1)); }

// One row of logits, with its bias where there is one.
template <class X, bool kBias>
struct Logits {
  const X* x;
  const float* bias;
  template <class Lanes>
  BIGFAST_INLINE F at(int64_t i, Lanes lanes) const {
    const F v = load(x + i, lanes);
    if constexpr (kBias) return v + load(bias + i, lanes);
    return v;
  }
  BIGFAST_INLINE float one(int64_t i) const { return to_float(x[i]) + (kBias ? bias[i] : 0.0f); }
};

template <class Row>
BIGFAST_INLINE float block_max(const Row& row, int64_t begin, int64_t end) {
  F m[4] = {F(-kInfinity), F(-kInfinity), F(-kInfinity), F(-kInfinity)};
  int64_t i = begin;
  for (; i + 4 * F::W <= end; i += 4 * F::W)
    for (int k = 0; k < 4; ++k) m[k] = max(m[k], row.at(i + k * F::W, Full{}));
  for (; i + F::W <= end; i += F::W) m[0] = max(m[0], row.at(i, Full{}));
  float result = max_lane(max(max(m[0], m[1]), max(m[2], m[3])));
  for (; i < end; ++i) {
    const float v = row.one(i);
    if (v > result) result = v;
  }
  return result;
}

// Chains of additions are kept short: a row may have one large term, and every small one that is
// added to it by itself costs a rounding.
template <class Row>
BIGFAST_INLINE float block_sum(const Row& row, int64_t begin, int64_t end, float shift) {
  constexpr int64_t kPart = 32 * F::W;
  const F low(shift), zero(0.0f);
  F total = zero;
  int64_t i = begin;
  while (i + kPart <= end) {
    F s[4] = {zero, zero, zero, zero};
    for (const int64_t stop = i + kPart; i < stop; i += 4 * F::W)
      for (int k = 0; k < 4; ++k) s[k] = s[k] + exp_logit(row.at(i + k * F::W, Full{}) - low);
    total = total + ((s[0] + s[1]) + (s[2] + s[3]));
  }
  F rest = zero;
  for (; i < end; i += F::W) {
    const Part part{static_cast<int>(end - i < F::W ? end - i : F::W)};
    rest = rest + only(exp_logit(row.at(i, part) - low), part);
  }
  return sum(total + rest);
}

template <class Row>
BIGFAST_INLINE float block_total(const Row& row, int64_t begin, int64_t end) {
  F s[2] = {F(0.0f), F(0.0f)};
  int64_t i = begin;
  for (; i + 2 * F::W <= end; i += 2 * F::W)
    for (int k = 0; k < 2; ++k) s[k] = s[k] + row.at(i + k * F::W, Full{});
  for (; i < end; i += F::W) {
    const Part part{static_cast<int>(end - i < F::W ? end - i : F::W)};
    s[0] = s[0] + only(row.at(i, part), part);
  }
  return sum(s[0] + s[1]);
}

template <class Row>
RowStats row_stats(const Row& row, int64_t n, LossTerms terms) {
  RowStats stats;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = begin + kBlock < n ? begin + kBlock : n;
    if (terms.label_smoothing != 0.0) stats.total += block_total(row, begin, end);
    if (stats.shift == -kInfinity) stats.shift = block_max(row, begin, end);
    // While all is -inf, nothing is to be taken off: -inf - -inf would be NaN.
    if (stats.shift == -kInfinity) continue;
    float sum = block_sum(row, begin, end, stats.shift);
    if (sum > kMostSum) {
      const float shift = block_max(row, begin, end);
      stats.sum *= exp(stats.shift - shift);
      stats.shift = shift;
      sum = block_sum(row, begin, end, shift);
    }
    stats.sum += sum;
  }
  return stats;
}

// What there is once per row is in fp64: it costs nothing beside the row.
BIGFAST_INLINE float row_loss(float at_target, int64_t n, RowStats stats, LossTerms terms) {
  const double log_sum = __builtin_log(stats.sum), lse = log_sum + stats.shift;
  double loss = log_sum - (static_cast<double>(at_target) - stats.shift);
  if (terms.label_smoothing != 0.0)
    loss += terms.label_smoothing * (at_target - stats.total / static_cast<double>(n));
  if (terms.z_loss != 0.0) loss += terms.z_loss * lse * lse;
  return static_cast<float>(loss);
}

// out may be the row itself.
template <class Row, class X>
BIGFAST_INLINE void row_gradient(const Row& row, int64_t n, int64_t target, RowStats stats,
                                 LossTerms terms, float dloss, X* out) {
  const double lse = __builtin_log(stats.sum) + stats.shift;
  const double growth = terms.z_loss == 0.0 ? 1.0 : 1.0 + 2.0 * terms.z_loss * lse;
  const double spread = terms.label_smoothing / static_cast<double>(n);
  const F factor(static_cast<float>(growth * dloss / stats.sum)), shift(stats.shift);
  const F offset(static_cast<float>(-spread * dloss));
  const double p = static_cast<double>(exp(row.one(target) - stats.shift)) / stats.sum;
  const double at_target = growth * p - (1.0 - terms.label_smoothing + spread);
  columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
    store(out + i, fma(exp_gradient(row.at(i, lanes) - shift, X{}), factor, offset), lanes);
  });
  store(out + target, F(static_cast<float>(at_target * dloss)), Part{1});
}

// Enough rows that a task outweighs its start; the split depends on the shape alone.
inline int64_t rows_per_task(int64_t classes) { return 1 + 8192 / classes; }

// f(t) for all rows.
template <class Body>
void parallel_rows(int64_t tokens, int64_t classes, Body&& f) {
  const int64_t step = rows_per_task(classes);
  auto body = [&](int64_t task) {
    const int64_t begin = task * step, end = begin + step < tokens ? begin + step : tokens;
    for (int64_t t = begin; t < end; ++t) f(t);
  };
  parallel_tasks((tokens + step - 1) / step, body);
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
