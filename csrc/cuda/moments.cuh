// The moments of Adam's family, and where they point:
//   m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2;  m / (sqrt(v) correction + eps)
//
// Divisions and roots are rounded to nearest: they cost nothing beside the time of the memory. What
// is fused into one rounding is said (fmaf), not left to the compiler: it could fuse otherwise in
// another kernel, and the same numbers would give other bits there.
#pragma once

#include "cuda/moments.h"
#include "cuda/multi_tensor.cuh"

namespace bigfast::cuda {

// 1 - beta^step, which would cancel where beta^step is near 1. For one thread of a block: fp64 is
// slow on most GPUs.
__device__ __forceinline__ double unbias(double log_beta, double step) {
  return -expm1(log_beta * step);
}

// 1 / sqrt(1 - beta2^step)
__device__ __forceinline__ float correction_of(const Moments& a, double step) {
  return static_cast<float>(1.0 / sqrt(unbias(a.log_beta2, step)));
}

// from + rate (to - from), as torch counts it: from the nearer end, so that a rate of 1 gives `to`.
__device__ __forceinline__ float lerp(float from, float to, float rate) {
  return rate < 0.5f ? fmaf(rate, to - from, from) : fmaf(rate - 1.0f, to - from, to);
}

__device__ __forceinline__ float direction(float m, float v, float correction, float eps) {
  return m / fmaf(sqrtf(v), correction, eps);
}

// Moves both moments of N elements, and gives their direction.
template <class Piece, int N>
__device__ __forceinline__ Vec<float, N> move(const Piece& piece, int i, Lanes<N>, const Moments& a,
                                              float scale, float correction) {
  const Vec<float, N> gradient = load<N>(piece.grad + i);
  Vec<float, N> m = load<N>(piece.exp_avg + i), v = load<N>(piece.exp_avg_sq + i), towards;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float g = gradient[k] * scale;
    m[k] = lerp(m[k], g, a.rate1);
    v[k] = fmaf(a.beta2, v[k], a.rate2 * g * g);
    towards[k] = direction(m[k], v[k], correction, a.eps);
  }
  store(piece.exp_avg + i, m);
  store(piece.exp_avg_sq + i, v);
  return towards;
}

}  // namespace bigfast::cuda
