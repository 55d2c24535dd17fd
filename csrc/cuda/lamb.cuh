// m, v and their direction as in adamw;  u = direction / (1 - beta1^t) + weight_decay p
// p -= lr |p| / |u| u, with a ratio of 1 where a norm is 0
//
// Three launches. The first, a block per chunk, moves the moments and leaves each chunk's sums of
// squares; the second, a block per tensor, adds these in fp64 in a fixed order; the third computes
// u again from m, v and p, which costs less than to write and to read it. Tensors of other types
// have a first and a third launch of their own. No atomics: the same bits each time. Bound by
// memory: 40 bytes per fp32 parameter.
#pragma once

#include "cuda/lamb.h"
#include "cuda/moments.cuh"

namespace bigfast::cuda {

// What depends on the step alone.
struct LambStep {
  float unbias1, correction;  // unbias1 = 1 / (1 - beta1^t)
};

// By all threads of a block.
__device__ __forceinline__ LambStep lamb_step(const Lamb& a) {
  BIGFAST_SHARED(LambStep, of_step, [1]);
  if (threadIdx.x == 0) {
    const double t = read(a.step);
    of_step[0] = {static_cast<float>(1.0 / unbias(a.moments.log_beta1, t)),
                  correction_of(a.moments, t)};
  }
  block_barrier();
  return of_step[0];
}

// W, G: the types of weights (multi_tensor.cuh) and of gradients.
template <class W, class G>
__global__ void __launch_bounds__(kStepThreads) lamb_moments_kernel(Lamb a) {
  if (skips(a.list)) return;
  const LambStep s = lamb_step(a);
  const float scale = gradient_scale(a.list);
  const Piece<W, G> piece(a.list);
  float squares[2] = {0.0f, 0.0f};  // of p, of u
  piece.each([&](int i, auto lanes) {
    constexpr int kCount = decltype(lanes)::count;
    const Vec<float, kCount> p = load<kCount>(piece.weight + i);
    const auto towards = move(piece, i, lanes, a.moments, scale, s.correction);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const float u = fmaf(s.unbias1, towards[k], a.weight_decay * p[k]);
      squares[0] = fmaf(p[k], p[k], squares[0]);
      squares[1] = fmaf(u, u, squares[1]);
    }
  });
  block_sums(squares);
  if (threadIdx.x == 0) {
    a.sums[2 * blockIdx.x] = squares[0];
    a.sums[2 * blockIdx.x + 1] = squares[1];
  }
}

// The table's chunks are not read: all tensors, of whatever types.
__global__ void __launch_bounds__(kStepThreads) lamb_rates_kernel(Lamb a) {
  if (skips(a.list)) return;
  const StepTensor& t = a.list.table.tensors[blockIdx.x];
  const int64_t chunks = (t.size + kChunk - 1) / kChunk;
  const float* sums = a.sums + 2 * t.first_task;
  double squares[2] = {0.0, 0.0};
  for (int64_t i = threadIdx.x; i < chunks; i += kStepThreads) {
    squares[0] += sums[2 * i];
    squares[1] += sums[2 * i + 1];
  }
  block_sums(squares);
  if (threadIdx.x == 0) {
    const bool adapts = squares[0] > 0.0 && squares[1] > 0.0;
    const double ratio = adapts ? sqrt(squares[0]) / sqrt(squares[1]) : 1.0;
    a.rates[blockIdx.x] = static_cast<float>(read(a.lr) * ratio);
  }
}

// P, W: the types of parameters and of weights.
template <class P, class W>
__global__ void __launch_bounds__(kStepThreads) lamb_step_kernel(Lamb a) {
  if (skips(a.list)) return;
  const LambStep s = lamb_step(a);
  const Piece<W, float> piece(a.list);  // whose gradients are not read
  const float rate = a.rates[piece.tensor];
  piece.each([&](int i, auto lanes) {
    constexpr int kCount = decltype(lanes)::count;
    Vec<float, kCount> p = load<kCount>(piece.weight + i);
    const Vec<float, kCount> m = load<kCount>(piece.exp_avg + i);
    const Vec<float, kCount> v = load<kCount>(piece.exp_avg_sq + i);
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const float towards = direction(m[k], v[k], s.correction, a.moments.eps);
      const float u = fmaf(s.unbias1, towards, a.weight_decay * p[k]);
      p[k] = fmaf(-rate, u, p[k]);
    }
    piece.template write<P>(i, p);
  });
}

}  // namespace bigfast::cuda
