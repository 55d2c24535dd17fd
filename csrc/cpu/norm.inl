// r = residual + dropout(x);  y = (r - mean) rstd w + b     (layer_norm; rms_norm has mean = b = 0)
//
// Forward: one row at a time. The row is gathered once into an fp32 buffer that stays in L1; mean
// and variance are two passes over it, so nothing cancels. Kept for backward: r, mean, rstd.
//
// Backward, with h = (r - mean) rstd and g = dy w:
//   dr = rstd (g - avg(g) - h avg(g h)) + dr_out;   dx = dropout(dr);   dw = sum dy h;   db = sum
//   dy
//
// Rows are split into tasks by the number of rows alone, and partial dw and db are added in the
// order of tasks: the bits do not depend on the number of threads.
#pragma once

#include "cpu/norm.h"
#include "cpu/parallel.h"
#include "cpu/philox.h"
#include "cpu/rows.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <bool kCenter, class X, class R, class Y>
void norm_rows_fwd(const NormForward& a, const float* weight, const float* bias, int64_t begin,
                   int64_t end) {
  const int64_t n = a.features;
  Scratch<float> row(n);
  Scratch<uint8_t> bits(keep_bytes(n));
  const bool drop = a.dropout.seed != nullptr;
  const F scale(a.dropout.scale);
  for (int64_t t = begin; t < end; ++t) {
    const X* x = static_cast<const X*>(a.x) + t * n;
    const R* residual = a.residual ? static_cast<const R*>(a.residual) + t * n : nullptr;
    R* r = a.r ? static_cast<R*>(a.r) + t * n : nullptr;
    Y* y = static_cast<Y*>(a.y) + t * n;
    if (drop) row_keep_bits(a.dropout, t, n, bits);

    Sum total;
    columns4(n, [&](int64_t i, auto lanes, int k) BIGFAST_LAMBDA {
      F v = load(x + i, lanes);
      if (drop) v = where_bits(bits, i, v * scale);
      if (residual) v = v + load(residual + i, lanes);
      v = rounded(v, R{});  // backward sees the stored r: so do the statistics
      if (r) store(r + i, v, lanes);
      store(row + i, v, lanes);
      if constexpr (kCenter) total.part[k] = total.part[k] + v;
    });
    const float mean = kCenter ? total.total() / static_cast<float>(n) : 0.0f;
    Sum squares;
    columns4(n, [&](int64_t i, auto lanes, int k) BIGFAST_LAMBDA {
      const F d = only(load(row + i, lanes) - F(mean), lanes);
      squares.part[k] = fma(d, d, squares.part[k]);
    });
    const float rstd = 1.0f / __builtin_sqrtf(squares.total() / static_cast<float>(n) + a.eps);
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      F v = (load(row + i, lanes) - F(mean)) * F(rstd) * load(weight + i, lanes);
      if (bias) v = v + load(bias + i, lanes);
      store(y + i, v, lanes);
    });
    if (kCenter) a.mean[t] = mean;
    a.rstd[t] = rstd;
  }
}

template <bool kCenter, class X, class R, class Y>
void norm_rows_bwd(const NormBackward& a, const float* weight, int64_t begin, int64_t end,
                   float* dweight, float* dbias) {
  const int64_t n = a.features;
  Scratch<uint8_t> bits(keep_bytes(n));
  const bool drop = a.dropout.seed != nullptr;
  const F scale(a.dropout.scale);
  for (int64_t t = begin; t < end; ++t) {
    const Y* dy = static_cast<const Y*>(a.dy) + t * n;
    const R* r = static_cast<const R*>(a.r) + t * n;
    const R* dr_out = a.dr_out ? static_cast<const R*>(a.dr_out) + t * n : nullptr;
    R* dresidual = a.dresidual ? static_cast<R*>(a.dresidual) + t * n : nullptr;
    X* dx = static_cast<X*>(a.dx) + t * n;
    if (drop) row_keep_bits(a.dropout, t, n, bits);

    const F mean(kCenter ? a.mean[t] : 0.0f), rstd(a.rstd[t]);
    Sum sum_g, sum_gh;
    columns4(n, [&](int64_t i, auto lanes, int k) BIGFAST_LAMBDA {
      const F d = load(dy + i, lanes);
      const F hat = (load(r + i, lanes) - mean) * rstd;
      const F gi = d * load(weight + i, lanes);
      store(dweight + i, fma(d, hat, load(dweight + i, lanes)), lanes);
      if (dbias) store(dbias + i, d + load(dbias + i, lanes), lanes);
      if constexpr (kCenter) sum_g.part[k] = sum_g.part[k] + gi;
      sum_gh.part[k] = fma(gi, hat, sum_gh.part[k]);
    });
    const F avg_g(kCenter ? sum_g.total() / static_cast<float>(n) : 0.0f);
    const F avg_gh(sum_gh.total() / static_cast<float>(n));
    // Stores cost more than loads here: h and g are computed again.
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F hat = (load(r + i, lanes) - mean) * rstd;
      F d = (load(dy + i, lanes) * load(weight + i, lanes) - avg_g - hat * avg_gh) * rstd;
      if (dr_out) d = d + load(dr_out + i, lanes);
      if (dresidual) store(dresidual + i, d, lanes);
      if (drop) d = where_bits(bits, i, d * scale);
      store(dx + i, d, lanes);
    });
  }
}

// Calls f with values of the three types. A bf16 residual between fp32 tensors serves nobody: it is
// refused before (norm.py), and not compiled.
template <class Body>
void dispatch_norm(DType x, DType r, DType y, Body&& f) {
  if (r == DType::bf16) return f(bf16{}, bf16{}, bf16{});
  dispatch(x, [&](auto tx) { dispatch(y, [&](auto ty) { f(tx, float{}, ty); }); });
}

template <bool kCenter>
void norm_fwd(const NormForward& a) {
  const int64_t n = a.features, step = rows_per_task(a.tokens, n);
  Scratch<float> weight(n), bias(n);
  widen_row(a.weight, a.w_dtype, n, weight);
  if (a.bias) widen_row(a.bias, a.w_dtype, n, bias);
  dispatch_norm(a.x_dtype, a.r_dtype, a.y_dtype, [&](auto x, auto r, auto y) {
    auto body = [&](int64_t task) {
      const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
      norm_rows_fwd<kCenter, decltype(x), decltype(r), decltype(y)>(
          a, weight, a.bias ? static_cast<float*>(bias) : nullptr, begin, end);
    };
    parallel_tasks((a.tokens + step - 1) / step, body);
  });
}

template <bool kCenter>
void norm_bwd(const NormBackward& a) {
  const int64_t n = a.features, step = rows_per_task(a.tokens, n);
  const int64_t tasks = (a.tokens + step - 1) / step;
  Scratch<float> weight(n), partial((tasks + 1) * 2 * n);
  widen_row(a.weight, a.w_dtype, n, weight);
  std::memset(partial, 0, (tasks + 1) * 2 * n * sizeof(float));
  dispatch_norm(a.x_dtype, a.r_dtype, a.y_dtype, [&](auto x, auto r, auto y) {
    auto body = [&](int64_t task) {
      const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
      float* dweight = partial + (task + 1) * 2 * n;
      norm_rows_bwd<kCenter, decltype(x), decltype(r), decltype(y)>(
          a, weight, begin, end, dweight, a.dbias ? dweight + n : nullptr);
    };
    parallel_tasks(tasks, body);
  });
  sum_partials(partial, tasks, 2 * n);
  narrow_row(partial, n, a.dweight, a.w_dtype);
  if (a.dbias) narrow_row(partial + n, n, a.dbias, a.w_dtype);
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
