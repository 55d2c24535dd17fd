// g = scale grad;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
// p = (1 - lr weight_decay) p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//
// One launch for all tensors of the same types, a block per chunk; elements are independent. Bound
// by memory: all is read once and written once, 28 bytes per fp32 parameter.
#pragma once

#include "cuda/adamw.h"
#include "cuda/moments.cuh"

namespace bigfast::cuda {

// What depends on the step alone.
struct AdamWStep {
  float scale, decay, step_size, correction;
};

// P, W, G: the types of parameters, of weights (multi_tensor.cuh) and of gradients.
template <class P, class W, class G>
__global__ void __launch_bounds__(kStepThreads) adamw_kernel(AdamW a) {
  if (skips(a.list)) return;
  BIGFAST_SHARED(AdamWStep, of_step, [1]);
  if (threadIdx.x == 0) {
    const double t = read(a.step), rate = read(a.lr);
    of_step[0] = {gradient_scale(a.list), static_cast<float>(1.0 - rate * a.weight_decay),
                  static_cast<float>(rate / unbias(a.moments.log_beta1, t)),
                  correction_of(a.moments, t)};
  }
  block_barrier();
  const AdamWStep s = of_step[0];
  const Piece<W, G> piece(a.list);
  piece.each([&](int i, auto lanes) {
    constexpr int kCount = decltype(lanes)::count;
    Vec<float, kCount> p = load<kCount>(piece.weight + i);
    const auto towards = move(piece, i, lanes, a.moments, s.scale, s.correction);
#pragma unroll
    for (int k = 0; k < kCount; ++k) p[k] = fmaf(-s.step_size, towards[k], p[k] * s.decay);
    piece.template write<P>(i, p);
  });
}

}  // namespace bigfast::cuda
