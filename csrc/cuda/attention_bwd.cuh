// Gradients of o = D(P) v, with P = exp(scale q k^T + bias - lse) and D the dropout, which scales
// what it keeps by c:
//   dv = D(P)^T do;   delta = rowsum(do o);   dS = D(P) (do v^T) - P delta
//   dq = scale dS k;   dk = scale dS^T q
// Products are taken of D(P) / c and dS / c; c comes in at the end.
//
// `keys_kernel`: a block is up to 128 keys of one key head (64, where there are 128 dims), each
// warp has dk and dv of 16 of them in registers, and queries pass by, 32 at a time, of all heads
// that share the keys. Weights and their gradients go through shared memory: a warp computes 16
// queries by 32 keys, with dropout's numbers where forward has them, and then takes all queries of
// its own keys. Where a sequence has up to 128 keys, of up to 64 dims, the block has all of dS and
// writes dq, too: five products. Else `queries_kernel` computes dq by itself, as forward goes:
// seven products, but each sum has one owner and one order, and nothing is added in memory.
// Registers decide the sizes: two blocks of 128 keys and 64 dims a multiprocessor would spill.
#pragma once

#include "cuda/attention_tiles.cuh"

namespace bigfast::cuda {

template <int kDim>
constexpr int kBackwardWarps = kDim <= 64 ? 8 : 4;
template <int kDim>
constexpr int kBlockKeys = kBackwardWarps<kDim> * kTileRows;
constexpr int kBlockQueries = 32;

// The longest sequence whose dq is the keys kernel's. With 128 dims registers have no room for it.
template <int kDim>
constexpr int kShort = kDim <= 64 ? kBlockKeys<kDim> : -1;

// Of one row: lse in units of log 2, and delta / c.
struct OfRow {
  float top, delta;
};

// A quad's, of `row`; where that is not there, 2^-infinity has no weight.
template <class T>
__device__ __forceinline__ OfRow of_row(const AttentionBackward& a, const Sequence& s, int head,
                                        int row, bool aligned) {
  const Rows<T> o = rows_of<T>(a.o, s.index, s.q_begin, head);
  const Rows<T> grad_o = rows_of<T>(a.grad_o, s.index, s.q_begin, head);
  const bool inside = row < s.q_len;
  float sum = 0.0f;
  if (inside) {
#pragma unroll 1
    for (int chunk = lane() % 4; chunk * kChunk < a.shape.dim; chunk += 4) {
      const auto x = load_chunk(o, row, chunk, aligned),
                 y = load_chunk(grad_o, row, chunk, aligned);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) sum += to_float(x[i]) * to_float(y[i]);
    }
  }
  sum += shuffle_xor(sum, 1);
  sum += shuffle_xor(sum, 2);
  const float kept = 1.0f - static_cast<float>(a.shape.dropout.threshold) * (1.0f / 65536.0f);
  return {inside ? a.lse[number_of(a.shape, s, head, row)] * kLog2E : kInfinity, sum * kept};
}

// s: q k^T of the run of keys from `first` on, becomes D(P) / c; dp: do v^T, becomes dS / c.
__device__ __forceinline__ void to_gradients(Run& s, Run& dp, const OfRow (&rows)[2], bool masked,
                                             const Head& head, const Queries& queries, int first) {
  add_alibi(s, head, queries, first);
  for_each(head, queries, first, [&](int i, int j, bool kept) {
    const float p = fast_exp2(s[i][j] * head.factor - rows[j / 2].top);
    s[i][j] = kept ? p : 0.0f;
    dp[i][j] = p * ((kept ? dp[i][j] : 0.0f) - rows[j / 2].delta);
  });
  if (masked) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (!sees(head, queries, first, i, j)) s[i][j] = dp[i][j] = 0.0f;
  }
}

// A run to columns 32 `run` .. of rows `row` .. of a tile.
template <class T, int N>
__device__ __forceinline__ void store_run(const Tile<T, N>& to, const Run& c, int row, int run) {
#pragma unroll
  for (int j = 0; j < 4; j += 2)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      T* at = to.at(row + 4 * j, lane() / 4, 4 * run + i) + 2 * (lane() % 4);
      store_vec(at, Vec<T, 2>{from_float<T>(c[i][j]), from_float<T>(c[i][j + 1])});
    }
}

// out += x^T y, of columns 8 `chunk` .. + 15 of x, over all 32 rows of x and y.
template <class T, int kStep, int N, int kDim>
__device__ __forceinline__ void add_transposed(float (&out)[kDim / 8][4], const Tile<T, N>& x,
                                               int chunk, const Tile<T, kDim>& y) {
#pragma unroll 1
  for (int row = 0; row < kBlockQueries; row += 16) {
    uint32_t a[4];
    load_a_of_columns(a, x, row, chunk);
#pragma unroll
    for (int dims = 0; dims < kDim / 16; ++dims) {
      uint32_t b[4];
      load_b_of_columns(b, y, row, 2 * dims);
      multiply<T, kStep>(out[2 * dims], a, b[0], b[1]);
      multiply<T, kStep>(out[2 * dims + 1], a, b[2], b[3]);
    }
  }
}

// Shared memory of the keys kernel.
template <class T, int kDim>
struct KeysMemory {
  static constexpr int kKeys = kBlockKeys<kDim>;
  Tile<T, kDim> k, v, q, grad_o;
  Tile<T, kKeys> kept, grad_s;  // D(P) / c, dS / c: 32 queries by all keys of the block
  OfRow* rows;                  // of the queries

  static constexpr int kBytes =
      2 * (2 * kKeys * kDim + 2 * kBlockQueries * kDim + 2 * kBlockQueries * kKeys) +
      kBlockQueries * static_cast<int>(sizeof(OfRow));
  __device__ explicit KeysMemory(T* at)
      : k{at},
        v{k.data + kKeys * kDim},
        q{v.data + kKeys * kDim},
        grad_o{q.data + kBlockQueries * kDim},
        kept{grad_o.data + kBlockQueries * kDim},
        grad_s{kept.data + kBlockQueries * kKeys},
        rows(reinterpret_cast<OfRow*>(grad_s.data + kBlockQueries * kKeys)) {}
};

// Of 16 queries by 32 keys, one warp's share: D(P) / c and dS / c, into shared memory. Of the 32
// queries from `start` on, and of the keys from `first` on, of which there are `count`.
template <class T, int kStep, int kDim>
__device__ __forceinline__ void share_gradients(const KeysMemory<T, kDim>& memory,
                                                const Sequence& s, const Head& head, int start,
                                                int first, int count) {
  const int row = warp() % 2 * kTileRows, run = warp() / 2;
  if (run * kRunColumns >= count) return;
  const int query = start + row, last = smaller(query + kTileRows, s.q_len) - 1;
  const int key = first + run * kRunColumns;
  const Queries queries = queries_of(s, query);
  const OfRow rows[2] = {memory.rows[row + lane() / 4], memory.rows[row + lane() / 4 + 8]};
  Run p = {}, dp = {};
  if (query <= last && s.from(query) < key + kRunColumns && key < s.to(last)) {
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t x[4];
      load_a(x, memory.q, row, 2 * step);
      add_step<T, kStep>(p, x, memory.k, run * kRunColumns, step);
      load_a(x, memory.grad_o, row, 2 * step);
      add_step<T, kStep>(dp, x, memory.v, run * kRunColumns, step);
    }
    const bool masked = key < s.from(last) || key + kRunColumns > s.to(query);
    to_gradients(p, dp, rows, masked, head, queries, key);
  }
  store_run(memory.kept, p, row, run);
  store_run(memory.grad_s, dp, row, run);
}

// dq = scale dS k of one warp's share, 16 queries by some dims, over `count` keys.
template <class T, int kStep, int kDim>
__device__ __forceinline__ void write_dq(const KeysMemory<T, kDim>& memory, const Sequence& s,
                                         const AttentionBackward& a, int head, int start,
                                         int count) {
  constexpr int kTiles = 2;  // of 8 dims
  static_assert(kTiles * kChunk * kBackwardWarps<kDim> / 2 >= kDim);
  const int row = warp() % 2 * kTileRows, chunk = warp() / 2 * kTiles;
  if (chunk >= kDim / kChunk) return;
  float dq[kTiles][4] = {};
#pragma unroll 1
  for (int key = 0; key < count; key += kRunColumns) {
    uint32_t low[4], high[4];  // operands of keys 0 .. 15 and 16 .. 31
    load_a(low, memory.grad_s, row, key / kChunk);
    load_a(high, memory.grad_s, row, key / kChunk + 2);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      uint32_t b[4];  // of 32 keys, 8 dims
      ldmatrix_trans(b, memory.k.at(key, lane(), chunk + i));
      multiply<T, kStep>(dq[i], low, b[0], b[1]);
      multiply<T, kStep>(dq[i], high, b[2], b[3]);
    }
  }
  const float factor = a.shape.scale * a.shape.dropout.scale;
  store_rows<T>(dq, factor, factor, a.dq, s.index, s.q_begin + start + row, head, chunk,
                s.q_len - start - row, static_cast<int>(a.shape.dim));
}

// Block (slice, key head, sequence), the first varying fastest: blocks of keys slice, slice +
// slices ... of that head.
template <class T, int kStep, int kDim>
__global__ void __launch_bounds__(32 * kBackwardWarps<kDim>, 1)
    attention_keys_kernel(AttentionBackward a, bool aligned, int slices) {
  if constexpr (!kHasProducts<kStep>) return;
  constexpr int kThreads = 32 * kBackwardWarps<kDim>, kKeys = kBlockKeys<kDim>;
  const AttentionShape& shape = a.shape;
  const int block = static_cast<int>(blockIdx.x), kv_heads = static_cast<int>(shape.kv_heads);
  const int thread = static_cast<int>(threadIdx.x), dim = static_cast<int>(shape.dim);
  const int kv_head = block / slices % kv_heads, group = static_cast<int>(shape.heads) / kv_heads;
  const Sequence s = sequence(shape, block / slices / kv_heads);
  const KeysMemory<T, kDim> memory(dynamic_shared<T>());

  // Where there is no key, there still is dq.
  for (int first = block % slices * kKeys; first < larger(s.k_all, 1); first += slices * kKeys) {
    const int count = larger(0, smaller(kKeys, s.k_len - first));
    const bool has_dq = s.k_len <= kShort<kDim> && first == 0;
    int begin = s.query_from(first), end = count > 0 ? s.query_to(first + count) : 0;
    if (has_dq) begin = 0, end = s.q_len;
    // No barrier: who has read the last keys has met one since, or these are none.
    load_tile(memory.k, rows_of<T>(a.k, s.index, s.k_begin, kv_head), first,
              round_up(count, kRunColumns), s.k_len, dim, aligned, thread, kThreads);
    load_tile(memory.v, rows_of<T>(a.v, s.index, s.k_begin, kv_head), first,
              round_up(count, kRunColumns), s.k_len, dim, aligned, thread, kThreads);
    commit_async();
    float dk[kDim / 8][4] = {}, dv[kDim / 8][4] = {};  // of keys 16 warp() ..

    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (int start = begin; start < end; start += kBlockQueries) {
        block_barrier();  // some may still read the last queries
        load_tile(memory.q, rows_of<T>(a.q, s.index, s.q_begin, head), start, kBlockQueries,
                  s.q_len, dim, aligned, thread, kThreads);
        load_tile(memory.grad_o, rows_of<T>(a.grad_o, s.index, s.q_begin, head), start,
                  kBlockQueries, s.q_len, dim, aligned, thread, kThreads);
        commit_async();
        if (warp() < kBlockQueries / 8) {
          const int row = warp() * 8 + lane() / 4;
          const OfRow of = of_row<T>(a, s, head, start + row, aligned);
          if (lane() % 4 == 0) memory.rows[row] = of;
        }
        const Head of_head = head_of(shape, s, opaque(head));
        wait_async<0>();
        block_barrier();
        share_gradients<T, kStep, kDim>(memory, s, of_head, start, first, count);
        block_barrier();
        if (warp() * kTileRows < count) {
          add_transposed<T, kStep>(dv, memory.kept, 2 * warp(), memory.grad_o);
          add_transposed<T, kStep>(dk, memory.grad_s, 2 * warp(), memory.q);
        }
        if constexpr (kShort<kDim> >= 0) {
          if (has_dq) write_dq<T, kStep>(memory, s, a, head, start, count);
        }
      }
    }
    wait_async<0>();  // where no query sees these keys
    const float c = shape.dropout.scale, factor = shape.scale * c;
    const int key = first + warp() * kTileRows, n = s.k_all - key;
    store_rows<T>(dk, factor, factor, a.dk, s.index, s.k_begin + key, kv_head, 0, n, dim);
    store_rows<T>(dv, c, c, a.dv, s.index, s.k_begin + key, kv_head, 0, n, dim);
  }
}

// Block (slice, head, sequence) as forward's; shared: `held` keys and values, and two tiles of
// queries, q and do.
template <class T, int kStep, int kDim>
__global__ void __launch_bounds__(32 * kBackwardWarps<kDim>, kBlocks<kStep>)
    attention_queries_kernel(AttentionBackward a, bool aligned, int slices, int held) {
  if constexpr (!kHasProducts<kStep>) return;
  const AttentionShape& shape = a.shape;
  const int block = static_cast<int>(blockIdx.x), heads = static_cast<int>(shape.heads);
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int tile = threads / 32 * kTileRows, dim = static_cast<int>(shape.dim);
  const int head = block / slices % heads;
  const int kv_head = head / (heads / static_cast<int>(shape.kv_heads));
  const Sequence s = sequence(shape, block / slices / heads);
  if (s.k_len <= kShort<kDim>) return;
  const Head of_head = head_of(shape, s, head);

  const Tile<T, kDim> k_tile{dynamic_shared<T>()}, v_tile{k_tile.data + held * kDim};
  const Tile<T, kDim> own_q{v_tile.data + (held + warp() * 2 * kTileRows) * kDim};
  const Tile<T, kDim> own_grad_o{own_q.data + kTileRows * kDim};
  int there = -1;  // the first of the keys that are held

  for (int start = block % slices * tile; start < s.q_len; start += slices * tile) {
    const int first = start + warp() * kTileRows, n = smaller(kTileRows, s.q_len - first);
    const int last = first + n - 1, end = s.to(smaller(start + tile, s.q_len) - 1);
    const Queries queries = queries_of(s, first);
    OfRow rows[2];
    if (n > 0) {
      load_tile(own_q, rows_of<T>(a.q, s.index, s.q_begin, head), first, kTileRows, s.q_len, dim,
                aligned, lane(), 32);
      load_tile(own_grad_o, rows_of<T>(a.grad_o, s.index, s.q_begin, head), first, kTileRows,
                s.q_len, dim, aligned, lane(), 32);
#pragma unroll
      for (int half = 0; half < 2; ++half)
        rows[half] = of_row<T>(a, s, head, queries.row + 8 * half, aligned);
    }
    commit_async();
    float dq[kDim / 8][4] = {};
    const int begin = s.from(start) / held * held;
    for (int part = begin; part < end; part += held) {
      if (part != there) {
        if (there >= 0) block_barrier();  // some may still read the last part
        there = part;
        const int size = smaller(held, round_up(s.k_len - part, kRunColumns));
        load_tile(k_tile, rows_of<T>(a.k, s.index, s.k_begin, kv_head), part, size, s.k_len, dim,
                  aligned, thread, threads);
        load_tile(v_tile, rows_of<T>(a.v, s.index, s.k_begin, kv_head), part, size, s.k_len, dim,
                  aligned, thread, threads);
        commit_async();
        wait_async<0>();
        block_barrier();
      }
      if (n <= 0) continue;
      if (part == begin) {
        wait_async<0>();
        warp_barrier();
      }
      const int stop = smaller(part + held, s.to(last));
      for (int key = larger(part, s.from(first) / kRunColumns * kRunColumns); key < stop;
           key += kRunColumns) {
        Run p = {}, dp = {};
#pragma unroll
        for (int step = 0; step < kDim / 16; ++step) {
          uint32_t x[4];
          load_a(x, own_q, 0, 2 * step);
          add_step<T, kStep>(p, x, k_tile, key - part, step);
          load_a(x, own_grad_o, 0, 2 * step);
          add_step<T, kStep>(dp, x, v_tile, key - part, step);
        }
        const bool masked = key < s.from(last) || key + kRunColumns > s.to(first);
        to_gradients(p, dp, rows, masked, of_head, queries, key);
        add_weighted<T, kStep, kDim>(dq, dp, k_tile, key - part);
      }
    }
    wait_async<0>();  // where no key is seen
    warp_barrier();   // before the next tile
    const float factor = shape.scale * shape.dropout.scale;
    if (n > 0) store_rows<T>(dq, factor, factor, a.dq, s.index, s.q_begin + first, head, 0, n, dim);
  }
}

}  // namespace bigfast::cuda
