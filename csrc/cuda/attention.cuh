// o = dropout(softmax(scale q k^T + bias)) v;    lse = log sum exp(scale q k^T + bias)
//
// For short sequences: a block is up to 128 queries of one head, and all their keys and values are
// in shared memory at once, up to 256 keys of 64 dims; where there are more, one part of them after
// the other. Up to 128 queries a head is one block, with as many warps as it needs, so that many
// small ones fit a multiprocessor. Packed lengths are not known to the host: a block takes tiles of
// queries in turn until its sequence has no more, whatever its length.
//
// A warp has 16 queries. It cannot hold their scores with 512 keys in registers, so it takes 32 at
// a time, and keeps of each row the largest score and the sum of exponentials below it (Milakov and
// Gimelshein, 2018). Where the largest score rose, o shrinks: 32 multiplications of 64 dims, left
// out where no row of the warp rose. A first pass over k for the largest score alone would be 16
// more mma of 64 dims for 32 keys, 128 cycles of sm_80's matrix units against 64. 64 keys at a time
// are as many instructions a key, and do not fit 128 registers.
#pragma once

#include "cuda/attention_tiles.cuh"

namespace bigfast::cuda {

// Of a block, at most: leaves a lane 128 registers, or for 128 dims 256, of two blocks' worth.
template <int kDim>
constexpr int kForwardWarps = kDim <= 64 ? 8 : 4;

template <int kDim>
struct Softmax {
  float o[kDim / 8][4] = {};                // not yet divided by the sum
  float top[2] = {-kInfinity, -kInfinity};  // the largest score of each row, times factor
  float sum[2] = {};                        // of this lane's columns
};

// Adds the run of keys from key `first` on, which are in rows `row` .. of k and v. masked: some are
// hidden from some of the queries.
template <class T, int kStep, int kDim>
__device__ __forceinline__ void add_keys(Softmax<kDim>& state, const uint32_t (&q)[kDim / 16][4],
                                         const Tile<T, kDim>& k, const Tile<T, kDim>& v, int row,
                                         int first, bool masked, const Head& head,
                                         const Queries& queries) {
  Run s = {};
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) add_step<T, kStep>(s, q[step], k, row, step);
  add_alibi(s, head, queries, first);
  if (masked) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (!sees(head, queries, first, i, j)) s[i][j] = -kInfinity;
  }

  float below[2], shrink[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float high = -kInfinity;
#pragma unroll
    for (int i = 0; i < 4; ++i) high = fmaxf(high, fmaxf(s[i][2 * half], s[i][2 * half + 1]));
    high = fmaxf(high, shuffle_xor(high, 1));
    high = fmaxf(high, shuffle_xor(high, 2));
    const float top = fmaxf(state.top[half], high * head.factor);
    below[half] = top == -kInfinity ? 0.0f : top;  // a row that has seen no key yet
    shrink[half] = fast_exp2(state.top[half] - below[half]);
    state.top[half] = top;
    state.sum[half] *= shrink[half];
  }
  if (any(shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) state.o[i][j] *= shrink[j / 2];
  }

  for_each(head, queries, first, [&](int i, int j, bool kept) {
    const float p = fast_exp2(s[i][j] * head.factor - below[j / 2]);
    state.sum[j / 2] += p;
    s[i][j] = kept ? p : 0.0f;
  });
  add_weighted<T, kStep, kDim>(state.o, s, v, row);
}

// Block (slice, head, sequence), the first varying fastest: tiles slice, slice + slices ... of that
// head's queries. Shared: `held` keys, `held` values, a multiple of 32, and a tile of queries.
template <class T, int kStep, int kDim>
__global__ void __launch_bounds__(32 * kForwardWarps<kDim>, kBlocks<kStep>)
    attention_fwd_kernel(AttentionForward a, bool aligned, int slices, int held) {
  if constexpr (!kHasProducts<kStep>) return;
  const AttentionShape& shape = a.shape;
  const int block = static_cast<int>(blockIdx.x), heads = static_cast<int>(shape.heads);
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int tile = threads / 32 * kTileRows, dim = static_cast<int>(shape.dim);
  const int head = block / slices % heads;
  const int kv_head = head / (heads / static_cast<int>(shape.kv_heads));
  const Sequence s = sequence(shape, block / slices / heads);
  const Head of_head = head_of(shape, s, head);

  const Tile<T, kDim> k_tile{dynamic_shared<T>()}, v_tile{k_tile.data + held * kDim};
  const Tile<T, kDim> own{v_tile.data + (held + warp() * kTileRows) * kDim};  // of this warp
  int there = -1;  // the first of the keys that are held

  for (int start = block % slices * tile; start < s.q_len; start += slices * tile) {
    const int first = start + warp() * kTileRows, n = smaller(kTileRows, s.q_len - first);
    const int last = first + n - 1, end = s.to(smaller(start + tile, s.q_len) - 1);
    const Queries queries = queries_of(s, first);
    if (n > 0)
      load_tile(own, rows_of<T>(a.q, s.index, s.q_begin, head), first, kTileRows, s.q_len, dim,
                aligned, lane(), 32);
    commit_async();
    uint32_t q_operand[kDim / 16][4];
    Softmax<kDim> state;
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
#pragma unroll
        for (int step = 0; step < kDim / 16; ++step) load_a(q_operand[step], own, 0, 2 * step);
      }
      // Of this part, the runs that some of the warp's queries see; masked where not all do.
      const int stop = smaller(part + held, s.to(last));
      for (int key = larger(part, s.from(first) / kRunColumns * kRunColumns); key < stop;
           key += kRunColumns) {
        const bool masked = key < s.from(last) || key + kRunColumns > s.to(first);
        add_keys<T, kStep, kDim>(state, q_operand, k_tile, v_tile, key - part, key, masked, of_head,
                                 queries);
      }
    }
    wait_async<0>();  // where no key is seen
    warp_barrier();   // before the next tile
    if (n <= 0) continue;

    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = state.sum[half];
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      factor[half] = sum == 0.0f ? 0.0f : shape.dropout.scale / sum;
      const int row = queries.row + 8 * half;
      if (lane() % 4 == 0 && row < s.q_len)
        a.lse[number_of(shape, s, head, row)] = (state.top[half] + fast_log2(sum)) * kLn2;
    }
    store_rows<T>(state.o, factor[0], factor[1], a.o, s.index, s.q_begin + first, head, 0, n, dim);
  }
}

}  // namespace bigfast::cuda
