// Launches of norm.cuh: which types it is compiled for, and how large its blocks and grids are.
#include "cuda/norm.h"

#include <algorithm>
#include <initializer_list>

#include "cuda/norm.cuh"

namespace bigfast::cuda {
namespace {

// Of a multiprocessor: enough rows in flight to fill the memory bus, and what registers allow.
constexpr int kForwardWarps = 16, kBackwardWarps = 8;

// Warps that share a row, warps of a block.
int row_warps(int64_t features) {
  return features <= kWarpColumns ? 1
                                  : static_cast<int>((features + kWarpColumns - 1) / kWarpColumns);
}
int block_warps(int64_t features) {
  return features <= kWarpColumns ? kWarps : row_warps(features);
}

// Blocks: as many as the GPU holds, and no more than there are rows for.
int64_t blocks(int64_t tokens, int64_t features, int warps_of_processor) {
  const int64_t warps = block_warps(features), rows = warps / row_warps(features);
  return std::max<int64_t>(
      1, std::min((tokens + rows - 1) / rows, multiprocessors() * warps_of_processor / warps));
}

bool vectors(int64_t features, std::initializer_list<const void*> pointers) {
  uintptr_t bits = 0;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  return features % kRun == 0 && bits % 16 == 0;
}

// Calls f with the three types: those of training, all else is Mixed.
template <class F>
void dispatch(bool vectors, DType x, DType r, DType y, F&& f) {
  if (!vectors || x != y || (r != DType::f32 && r != x)) return f(Mixed{}, Mixed{}, Mixed{});
  if (x == DType::f32) return f(float{}, float{}, float{});
  if (x == DType::bf16) return r == x ? f(bf16{}, bf16{}, bf16{}) : f(bf16{}, float{}, bf16{});
  r == x ? f(f16{}, f16{}, f16{}) : f(f16{}, float{}, f16{});
}

}  // namespace

void norm_fwd(const NormForward& a, void* stream) {
  if (a.tokens == 0) return;
  const int64_t n = a.features;
  const dim3 grid(blocks(a.tokens, n, kForwardWarps)), block(block_warps(n) * 32);
  const bool aligned = vectors(n, {a.x, a.residual, a.weight, a.bias, a.y, a.r});
  dispatch(aligned, a.x_dtype, a.r_dtype, a.y_dtype, [&](auto x, auto r, auto y) {
    launch(norm_fwd_kernel<decltype(x), decltype(r), decltype(y)>, grid, block, 0,
           static_cast<Stream>(stream), a, row_warps(n));
  });
}

int64_t norm_partials(int64_t tokens, int64_t features) {
  return 2 * blocks(tokens, features, kBackwardWarps) * features;
}

void norm_bwd(const NormBackward& a, void* stream) {
  const int64_t n = a.features, count = blocks(a.tokens, n, kBackwardWarps);
  const dim3 grid(count), block(block_warps(n) * 32);
  const bool aligned = vectors(n, {a.dy, a.dr_out, a.r, a.weight, a.dx, a.dresidual});
  dispatch(aligned, a.x_dtype, a.r_dtype, a.y_dtype, [&](auto x, auto r, auto y) {
    launch(norm_bwd_kernel<decltype(x), decltype(r), decltype(y)>, grid, block, n * sizeof(float),
           static_cast<Stream>(stream), a, row_warps(n));
  });
  launch(norm_sum_kernel, dim3((n + 31) / 32, a.dbias ? 2 : 1), dim3(kSumWarps * 32), 0,
         static_cast<Stream>(stream), a.partials, static_cast<int>(count), n, a.dweight, a.dbias,
         a.w_dtype);
}

}  // namespace bigfast::cuda
