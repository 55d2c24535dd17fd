// Launches of attention.cuh: which types and head dims it is compiled for, and what a block has.
#include "cuda/attention.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>

#include "cuda/attention.cuh"

namespace bigfast::cuda {
namespace {

// Bytes of shared memory that a block takes: two fit a multiprocessor of 164 KB, and sm_75 has 64.
constexpr int kForwardBytes = 80 * 1024;

int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Tokens of a sequence, of `tokens` of each; packed, of all: then twice the average. Longer ones
// are served, too, in more turns.
int64_t expected(const AttentionShape& a, int64_t tokens) {
  const int64_t n = a.cu_seqlens ? 2 * parts(tokens, sequences(a)) : tokens;
  return n < 1 ? 1 : n;
}

// A window without end, which can still be added to a position.
AttentionShape bounded(AttentionShape a) {
  a.left = std::min<int64_t>(a.left, 1 << 30);
  a.right = std::min<int64_t>(a.right, 1 << 30);
  return a;
}

// Whether all rows begin at multiples of 16 bytes.
bool aligned(std::initializer_list<AttentionRows<const void>> tensors) {
  uint64_t bits = 0;
  for (const auto& x : tensors)
    bits |= reinterpret_cast<uintptr_t>(x.data) | 2 * (x.batch | x.token | x.head);
  return bits % 16 == 0;
}

template <int kDim>
struct Dim {
  static constexpr int value = kDim;
};
template <class T, int kStep>
struct Product {
  using Type = T;
  static constexpr int step = kStep;
};

template <class F>
void dispatch(const AttentionShape& a, F&& f) {
  const auto with_product = [&](auto dim) {
    if (capability() >= 80)
      return a.dtype == DType::bf16 ? f(dim, Product<bf16, 16>{}) : f(dim, Product<f16, 16>{});
    if (a.dtype != DType::f16) throw std::runtime_error("attention: bf16 needs sm_80");
    f(dim, Product<f16, 8>{});
  };
  if (a.dim <= 32) return with_product(Dim<32>{});
  if (a.dim <= 64) return with_product(Dim<64>{});
  with_product(Dim<128>{});
}

}  // namespace

void attention_fwd(const AttentionForward& given, void* stream) {
  AttentionForward a = given;
  const AttentionShape& shape = a.shape = bounded(given.shape);
  if (shape.tokens() == 0) return;
  dispatch(shape, [&](auto dim, auto product) {
    using Types = decltype(product);
    constexpr int kDim = dim.value, kRow = kDim * 2;  // bytes
    const int64_t queries = expected(shape, shape.queries), keys = expected(shape, shape.keys);
    const int64_t warps = std::min<int64_t>(forward_warps(kDim), parts(queries, kTileRows));
    const int64_t tile = warps * kTileRows, slices = parts(queries, tile);
    const int64_t room = (std::min(kForwardBytes, shared_limit()) - tile * kRow) / (2 * kRow);
    const int64_t held = std::min(room / kRunColumns, parts(keys, kRunColumns)) * kRunColumns;
    launch(attention_fwd_kernel<typename Types::Type, Types::step, kDim>,
           dim3(slices * shape.heads * sequences(shape)), dim3(warps * 32),
           (tile + 2 * held) * kRow, static_cast<Stream>(stream), a, aligned({a.q, a.k, a.v}),
           static_cast<int>(slices), static_cast<int>(held));
  });
}

}  // namespace bigfast::cuda
