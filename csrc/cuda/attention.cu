// Launches of attention.cuh and attention_bwd.cuh: which types and head dims it is compiled for,
// and what a block has.
#include "cuda/attention.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>

#include "cuda/attention.cuh"
#include "cuda/attention_bwd.cuh"

namespace bigfast::cuda {
namespace {

// Bytes of shared memory that a block takes: two fit a multiprocessor of 164 KB, and sm_75 has 64.
constexpr int kMostBytes = 80 * 1024;

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
  if (a.dtype == DType::f32 || a.dim % kChunk != 0 || a.dim > 128)
    throw std::runtime_error("attention: serves 16-bit numbers and dims that are multiples of 8");
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

// A grid whose blocks go over queries: blocks of a head, warps of a block, keys that it holds.
struct Plan {
  int64_t slices, warps, held, bytes;
};
Plan plan(const AttentionShape& a, int most_warps, int query_tiles, int64_t row_bytes) {
  const int64_t queries = expected(a, a.queries), keys = expected(a, a.keys);
  const int64_t warps = std::min<int64_t>(most_warps, parts(queries, kTileRows));
  const int64_t tile = warps * kTileRows, query_bytes = query_tiles * tile * row_bytes;
  const int64_t room = (std::min(kMostBytes, shared_limit()) - query_bytes) / (2 * row_bytes);
  const int64_t held = std::min(room / kRunColumns, parts(keys, kRunColumns)) * kRunColumns;
  return {parts(queries, tile), warps, held, query_bytes + 2 * held * row_bytes};
}

}  // namespace

void attention_fwd(const AttentionForward& given, void* stream) {
  AttentionForward a = given;
  const AttentionShape& shape = a.shape = bounded(given.shape);
  if (shape.tokens() == 0) return;
  dispatch(shape, [&](auto dim, auto product) {
    using Types = decltype(product);
    const Plan p = plan(shape, kForwardWarps<dim.value>, 1, dim.value * 2);
    launch(attention_fwd_kernel<typename Types::Type, Types::step, dim.value>,
           dim3(p.slices * shape.heads * sequences(shape)), dim3(p.warps * 32), p.bytes,
           static_cast<Stream>(stream), a, aligned({a.q, a.k, a.v}), static_cast<int>(p.slices),
           static_cast<int>(p.held));
  });
}

void attention_bwd(const AttentionBackward& given, void* stream) {
  AttentionBackward a = given;
  const AttentionShape& shape = a.shape = bounded(given.shape);
  if (sequences(shape) == 0) return;
  const bool whole_chunks = aligned({a.q, a.k, a.v, a.o, a.grad_o});
  dispatch(shape, [&](auto dim, auto product) {
    using Types = decltype(product);
    using T = typename Types::Type;
    constexpr int kDim = dim.value, kKeys = kBlockKeys<kDim>;
    const int64_t slices = parts(expected(shape, shape.keys), kKeys);
    launch(attention_keys_kernel<T, Types::step, kDim>,
           dim3(slices * shape.kv_heads * sequences(shape)), dim3(kBackwardWarps<kDim> * 32),
           KeysMemory<T, kDim>::kBytes, static_cast<Stream>(stream), a, whole_chunks,
           static_cast<int>(slices));
    if (shape.keys <= kShort<kDim> || shape.tokens() == 0) return;
    const Plan p = plan(shape, kBackwardWarps<kDim>, 2, kDim * 2);
    launch(attention_queries_kernel<T, Types::step, kDim>,
           dim3(p.slices * shape.heads * sequences(shape)), dim3(p.warps * 32), p.bytes,
           static_cast<Stream>(stream), a, whole_chunks, static_cast<int>(p.slices),
           static_cast<int>(p.held));
  });
}

}  // namespace bigfast::cuda
