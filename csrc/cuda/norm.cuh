// r = residual + dropout(x);  y = (r - mean) rstd w + b     (layer_norm; rms_norm has mean = b = 0)
//
// A group of threads holds a row in registers, each four runs of eight columns: a warp up to 1024
// columns, a block above. Forward reads and writes once; mean and variance are two passes over
// registers, so nothing cancels. Kept for backward: r, mean, rstd.
//
// Backward, with h = (r - mean) rstd and g = dy w:
//   dr = rstd (g - avg(g) - h avg(g h)) + dr_out;   dx = dropout(dr);   dw = sum dy h;   db = sum
//   dy
//
// The grid is as large as the GPU; its groups take rows in turn. Each keeps its part of dw and db
// in registers, a block adds those of its groups in their order, and a second kernel adds those of
// the blocks in theirs: no atomics, the same bits each time on the same kind of GPU.
#pragma once

#include "args/norm.h"
#include "cuda/runs.cuh"

namespace bigfast::cuda {

constexpr int kRuns = 4;                         // of a thread
constexpr int kWarpColumns = 32 * kRuns * kRun;  // that a warp holds
constexpr int kWarps = 4;                        // of a block whose warps have a row each
constexpr int kMostWarps = 8;                    // of a block that has one row: 8192 columns

// Sums over the threads that share a row. `turn` counts calls: while some still read the sums of
// one call, others may write those of the next.
template <int kSums>
__device__ __forceinline__ void row_sums(float (&v)[kSums], int row_warps, int& turn) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) v[i] = warp_sum(v[i]);
  if (row_warps == 1) return;
  BIGFAST_SHARED(float, parts, [2][kSums][kMostWarps]);
  if (lane() == 0) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) parts[turn % 2][i][warp()] = v[i];
  }
  block_barrier();
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    v[i] = 0.0f;
    for (int part = 0; part < row_warps; ++part) v[i] += parts[turn % 2][i][part];
  }
  ++turn;
}

// Where a thread's part of a row lies.
struct Place {
  int first;  // column of its first run
  int step;   // columns from one of its runs to the next
  __device__ __forceinline__ int64_t column(int run) const { return first + run * step; }
};
__device__ __forceinline__ Place place(int row_warps) {
  const int thread = row_warps == 1 ? lane() : static_cast<int>(threadIdx.x);
  return {thread * kRun, row_warps * 32 * kRun};
}

// Rows that a grid takes in turn: first, first + step ...
__device__ __forceinline__ int64_t first_row(int row_warps) {
  const int groups = static_cast<int>(blockDim.x) / 32 / row_warps;
  return static_cast<int64_t>(blockIdx.x) * groups + warp() / row_warps;
}
__device__ __forceinline__ int64_t row_step(int row_warps) {
  return static_cast<int64_t>(gridDim.x) * (blockDim.x / 32 / row_warps);
}

// X, R, Y: the types of x, r and y, or Mixed for all of them. Eight columns from `col` on are there
// as a whole, or, where Mixed, in part.
template <class X, class R, class Y>
__global__ void __launch_bounds__(kMostWarps * 32) norm_fwd_kernel(NormForward a, int row_warps) {
  constexpr bool kVectors = !std::is_same_v<X, Mixed>;
  const int64_t n = a.features, step = row_step(row_warps);
  const Place at = place(row_warps);
  const uint64_t key = a.dropout.seed ? static_cast<uint64_t>(*a.dropout.seed) : 0;
  int turn = 0;
  for (int64_t row = first_row(row_warps); row < a.tokens; row += step) {
    const uint32_t logical = static_cast<uint32_t>(a.dropout.rows ? a.dropout.rows[row] : row);
    float v[kRuns][kRun];
    float total[1] = {0.0f};
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      const int64_t col = at.column(run), here = row * n + col;
      const int inside = static_cast<int>(n - col);
#pragma unroll
      for (int i = 0; i < kRun; ++i) v[run][i] = 0.0f;
      if (inside <= 0) continue;
      load_run<X>(a.x, a.x_dtype, here, inside, v[run]);
      if (a.dropout.seed) drop_run(a.dropout, key, logical, col, v[run]);
      if (a.residual) {
        float residual[kRun];
        load_run<R>(a.residual, a.r_dtype, here, inside, residual);
#pragma unroll
        for (int i = 0; i < kRun; ++i) v[run][i] += residual[i];
      }
      // Backward sees the stored r: so do the statistics.
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        v[run][i] = rounded<R>(v[run][i], a.r_dtype);
        total[0] += v[run][i];
      }
      if (a.r) store_run<R>(a.r, a.r_dtype, here, inside, v[run]);
    }

    float mean = 0.0f;
    if (a.mean) {
      row_sums(total, row_warps, turn);
      mean = total[0] / static_cast<float>(n);
    }
    float squares[1] = {0.0f};
#pragma unroll
    for (int run = 0; run < kRuns; ++run)
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        v[run][i] -= mean;
        if (at.column(run) + i < n) squares[0] += v[run][i] * v[run][i];
      }
    row_sums(squares, row_warps, turn);
    const float rstd = fast_rsqrt(squares[0] / static_cast<float>(n) + a.eps);

#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      const int64_t col = at.column(run);
      const int inside = static_cast<int>(n - col);
      if (inside <= 0) continue;
      float weight[kRun], bias[kRun] = {};
      load_cached<kVectors>(a.weight, a.w_dtype, col, inside, weight);
      if (a.bias) load_cached<kVectors>(a.bias, a.w_dtype, col, inside, bias);
#pragma unroll
      for (int i = 0; i < kRun; ++i) v[run][i] = v[run][i] * rstd * weight[i] + bias[i];
      store_run<Y>(a.y, a.y_dtype, row * n + col, inside, v[run]);
    }
    if (at.first == 0) {
      if (a.mean) a.mean[row] = mean;
      a.rstd[row] = rstd;
    }
  }
}

// Adds what the groups of a block have found, in the order of groups, in shared memory (columns),
// and writes the sum to `to` (n): those of the columns that this thread then reads.
__device__ __forceinline__ void add_groups(float (&part)[kRuns][kRun], const Place& at,
                                           int row_warps, int64_t n, float* to) {
  float* sums = dynamic_shared<float>();
  const int groups = static_cast<int>(blockDim.x) / 32 / row_warps;
  for (int group = 0; group < groups; ++group) {
    if (warp() / row_warps == group) {
#pragma unroll
      for (int run = 0; run < kRuns; ++run)
#pragma unroll
        for (int i = 0; i < kRun; ++i) {
          const int64_t col = at.column(run) + i;
          if (col < n) sums[col] = group == 0 ? part[run][i] : sums[col] + part[run][i];
        }
    }
    block_barrier();
  }
  for (int64_t col = threadIdx.x; col < n; col += blockDim.x) to[col] = sums[col];
  block_barrier();
}

// partials: (2, blocks, n), of dw and of db.
template <class X, class R, class Y>
__global__ void __launch_bounds__(kMostWarps * 32) norm_bwd_kernel(NormBackward a, int row_warps) {
  constexpr bool kVectors = !std::is_same_v<X, Mixed>;
  const int64_t n = a.features, step = row_step(row_warps);
  const Place at = place(row_warps);
  const uint64_t key = a.dropout.seed ? static_cast<uint64_t>(*a.dropout.seed) : 0;
  float dweight[kRuns][kRun] = {}, dbias[kRuns][kRun] = {};
  int turn = 0;
  for (int64_t row = first_row(row_warps); row < a.tokens; row += step) {
    const float mean = a.mean ? a.mean[row] : 0.0f, rstd = a.rstd[row];
    float h[kRuns][kRun], g[kRuns][kRun];
    float sums[2] = {0.0f, 0.0f};
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      const int64_t col = at.column(run), here = row * n + col;
      const int inside = static_cast<int>(n - col);
      if (inside <= 0) continue;
      float weight[kRun];
      load_run<R>(a.r, a.r_dtype, here, inside, h[run]);
      load_run<Y>(a.dy, a.y_dtype, here, inside, g[run]);
      load_cached<kVectors>(a.weight, a.w_dtype, col, inside, weight);
#pragma unroll
      for (int i = 0; i < kRun; ++i) {
        h[run][i] = (h[run][i] - mean) * rstd;
        dweight[run][i] += g[run][i] * h[run][i];
        dbias[run][i] += g[run][i];
        g[run][i] *= weight[i];  // 0 outside of the row
        sums[0] += g[run][i];
        sums[1] += g[run][i] * h[run][i];
      }
    }
    row_sums(sums, row_warps, turn);
    const float avg_g = a.mean ? sums[0] / static_cast<float>(n) : 0.0f;
    const float avg_gh = sums[1] / static_cast<float>(n);

    const uint32_t logical = static_cast<uint32_t>(a.dropout.rows ? a.dropout.rows[row] : row);
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      const int64_t col = at.column(run), here = row * n + col;
      const int inside = static_cast<int>(n - col);
      if (inside <= 0) continue;
      float out[kRun] = {};
      if (a.dr_out) load_run<R>(a.dr_out, a.r_dtype, here, inside, out);
#pragma unroll
      for (int i = 0; i < kRun; ++i) out[i] += (g[run][i] - avg_g - h[run][i] * avg_gh) * rstd;
      if (a.dresidual) store_run<R>(a.dresidual, a.r_dtype, here, inside, out);
      if (a.dropout.seed) drop_run(a.dropout, key, logical, col, out);
      store_run<X>(a.dx, a.x_dtype, here, inside, out);
    }
  }
  float* part = a.partials + static_cast<int64_t>(blockIdx.x) * n;
  add_groups(dweight, at, row_warps, n, part);
  if (a.dbias) add_groups(dbias, at, row_warps, n, part + gridDim.x * n);
}

// out (n): the sum of partials (count, n), of 32 columns by a block: each of its warps adds every
// eighth row, and the first warp adds what they have.
constexpr int kSumWarps = 8;
__global__ void __launch_bounds__(kSumWarps * 32)
    norm_sum_kernel(const float* partials, int count, int64_t n, void* dweight, void* dbias,
                    DType dtype) {
  BIGFAST_SHARED(float, sums, [kSumWarps][32]);
  const int64_t col = static_cast<int64_t>(blockIdx.x) * 32 + lane();
  const float* from = partials + blockIdx.y * count * n;
  float sum = 0.0f;
  if (col < n)
    for (int64_t row = warp(); row < count; row += kSumWarps) sum += from[row * n + col];
  sums[warp()][lane()] = sum;
  block_barrier();
  if (warp() == 0 && col < n) {
    for (int other = 1; other < kSumWarps; ++other) sum += sums[other][lane()];
    store_number(blockIdx.y == 0 ? dweight : dbias, dtype, col, sum);
  }
}

}  // namespace bigfast::cuda
