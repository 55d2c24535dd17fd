// What attention's kernels share: tiles in shared memory and their mma operands, where sequences
// lie, and what is done to a run of scores.
#pragma once

#include "args/attention.h"
#include "cuda/device.cuh"

namespace bigfast::cuda {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kInfinity = __builtin_inff();
constexpr int kChunk = 8;        // 16-bit elements of 16 bytes: what one access moves
constexpr int kTileRows = 16;    // of a warp's mma tile
constexpr int kRunColumns = 32;  // whose dropout a quad's lanes know by a call each

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }
__host__ __device__ __forceinline__ int round_up(int n, int unit) {
  return (n + unit - 1) / unit * unit;
}

// Blocks of a multiprocessor: sm_75, whose products are of depth 8, has shared memory for one.
template <int kStep>
constexpr int kBlocks = kStep == 8 ? 1 : 2;

// --- tiles in shared memory ----------------------------------------------------------------------
// Rows of kColumns elements in chunks of 16 bytes. ldmatrix reads one chunk of each of eight rows
// at a time: the chunks of a row are permuted so that these lie in different banks.
template <class T, int kColumns>
struct Tile {
  static constexpr int kChunks = kColumns / kChunk;
  static constexpr int kLineRows = kChunks < 8 ? 8 / kChunks : 1;  // of 128 bytes: all banks
  static constexpr int kOrders = kChunks < 8 ? kChunks : 8;
  T* data;

  // Row first + row, first a multiple of 8: only `row` decides the order, so that addresses of a
  // lane differ by constants.
  __device__ __forceinline__ T* at(int first, uint32_t row, uint32_t chunk) const {
    const uint32_t order = row / kLineRows % kOrders;
    return data + first * kColumns + ((row * kColumns + order * kChunk) ^ (chunk * kChunk));
  }
};

// Operands of m16n8k16 from chunks `chunk`, an even number, and the next, of 16 rows. `a`: rows are
// those of A. `b`: rows are columns of B, two times eight: b[0], b[1] and b[2], b[3].
// `a_of_columns`: the 16 columns are rows of A, and rows are k. `b_of_columns`: the 16 columns are
// columns of B, as in `b`.
template <class T, int N>
__device__ __forceinline__ T* by_columns(const Tile<T, N>& from, int row, int chunk) {
  return from.at(row, lane() % 16, chunk ^ (lane() / 16));
}
template <class T, int N>
__device__ __forceinline__ T* by_rows(const Tile<T, N>& from, int row, int chunk) {
  return from.at(row, lane() / 16 * 8 + lane() % 8, chunk ^ (lane() / 8 % 2));
}
template <class T, int N>
__device__ __forceinline__ void load_a(uint32_t (&a)[4], const Tile<T, N>& from, int row,
                                       int chunk) {
  ldmatrix(a, by_columns(from, row, chunk));
}
template <class T, int N>
__device__ __forceinline__ void load_b(uint32_t (&b)[4], const Tile<T, N>& from, int row,
                                       int chunk) {
  ldmatrix(b, by_rows(from, row, chunk));
}
template <class T, int N>
__device__ __forceinline__ void load_a_of_columns(uint32_t (&a)[4], const Tile<T, N>& from, int row,
                                                  int chunk) {
  ldmatrix_trans(a, by_rows(from, row, chunk));
}
template <class T, int N>
__device__ __forceinline__ void load_b_of_columns(uint32_t (&b)[4], const Tile<T, N>& from, int row,
                                                  int chunk) {
  ldmatrix_trans(b, by_columns(from, row, chunk));
}

// c (16, 8) += a (16, 16) b (16, 8): one instruction of sm_80, or two of sm_75 (kStep 8).
template <class T, int kStep>
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b_low,
                                         uint32_t b_high) {
  if constexpr (kStep == 16) {
    mma<T>(c, a, {b_low, b_high});
  } else {
    mma<T>(c, {a[0], a[1]}, {b_low});
    mma<T>(c, {a[2], a[3]}, {b_high});
  }
}

// --- global memory -------------------------------------------------------------------------------
// Rows of one head of one sequence.
template <class T>
struct Rows {
  const T* data;
  int64_t token;  // elements from row to row
};

template <class T>
__device__ __forceinline__ Rows<T> rows_of(const AttentionRows<const void>& x, int b, int token,
                                           int head) {
  b = opaque(b);  // registers are needed for more
  return {static_cast<const T*>(x.data) + b * x.batch + token * x.token + head * x.head, x.token};
}

// aligned: all rows begin at multiples of 16 bytes.
template <class T>
__device__ __forceinline__ Vec<T, kChunk> load_chunk(const Rows<T>& from, int row, int chunk,
                                                     bool aligned) {
  const T* at = from.data + row * from.token + chunk * kChunk;
  if (aligned) return load_vec<kChunk>(at);
  Vec<T, kChunk> out;
#pragma unroll
  for (int i = 0; i < kChunk; ++i) out[i] = at[i];
  return out;
}

// `count` threads, of which this is `thread`, ask for rows first .. first + n - 1; from row `end`
// and from column `dim` on there are zeros. They are there after wait_async and a barrier.
template <class T, int N>
__device__ __forceinline__ void load_tile(const Tile<T, N>& to, const Rows<T>& from, int first,
                                          int n, int end, int dim, bool aligned, int thread,
                                          int count) {
  constexpr int kChunks = Tile<T, N>::kChunks;
#pragma unroll 1
  for (int i = thread; i < n * kChunks; i += count) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool inside = first + row < end && chunk * kChunk < dim;
    if (aligned || !inside) {
      const T* at = from.data + (first + row) * from.token + chunk * kChunk;
      copy_async(to.at(0, row, chunk), at, inside);
    } else {
      store_vec(to.at(0, row, chunk), load_chunk(from, first + row, chunk, false));
    }
  }
}

// Lane t of each four gets word t of all four: out[i] is lane i's.
__device__ __forceinline__ void transpose(uint32_t (&words)[4]) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool high = lane() & bit;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      uint32_t &keeps = words[i], &gives = words[i | bit];
      const uint32_t got = shuffle_xor(high ? keeps : gives, bit);
      (high ? keeps : gives) = got;
    }
  }
}

// A warp writes 16 rows of a contiguous result from accumulators times a factor for each of a
// lane's two rows: columns from chunk `first` on. There are n rows and `dim` columns.
template <class T, int kTiles>
__device__ __forceinline__ void store_rows(const float (&c)[kTiles][4], float low, float high,
                                           const AttentionRows<void>& to, int b, int token,
                                           int head, int first, int n, int dim) {
  static_assert(kTiles % 2 == 0);
  const int row = lane() / 4 + lane() % 4 / 2 * 8;
  T* data = static_cast<T*>(to.data) + b * to.batch + (token + row) * to.token + head * to.head;
#pragma unroll
  for (int i = 0; i < kTiles; i += 2) {
    uint32_t words[4] = {
        pack<T>(c[i][0] * low, c[i][1] * low), pack<T>(c[i + 1][0] * low, c[i + 1][1] * low),
        pack<T>(c[i][2] * high, c[i][3] * high), pack<T>(c[i + 1][2] * high, c[i + 1][3] * high)};
    transpose(words);
    const int chunk = first + i + lane() % 2;
    Vec<T, kChunk> out;
    memcpy(&out, words, sizeof(out));
    if (row < n && chunk * kChunk < dim) store_vec(data + chunk * kChunk, out);
  }
}

// --- sequences -----------------------------------------------------------------------------------
// As csrc/cpu/attention.inl has them; packed, sequence `batch` has the tokens of nobody, which see
// nothing and are not seen.
struct Sequence {
  int index;
  int q_begin, q_len;   // in tokens of AttentionRows
  int k_begin, k_len;   // keys that count
  int k_all;            // and those beyond, which seqused_k leaves out
  int64_t first_token;  // of the queries, over all sequences
  int left, right;

  // The key that stands where query i does: the last query and the last key stand together.
  __device__ __forceinline__ int own(int i) const { return i + k_len - q_len; }
  // Query i sees the keys [from(i), to(i)). Neither falls with i.
  __device__ __forceinline__ int from(int i) const { return larger(0, own(i) - left); }
  __device__ __forceinline__ int to(int i) const {
    return smaller(k_len, larger(0, own(i) + 1 + right));
  }
  // The first query that sees key j or one behind it; behind the last that sees one before key j.
  __device__ __forceinline__ int query_from(int j) const {
    return larger(0, j - right - k_len + q_len);
  }
  __device__ __forceinline__ int query_to(int j) const {
    return smaller(q_len, larger(0, j + left - k_len + q_len));
  }
};

__host__ __device__ __forceinline__ int sequences(const AttentionShape& a) {
  return static_cast<int>(a.batch) + (a.cu_seqlens ? 1 : 0);
}

// Where the number of a query is in lse (heads, tokens).
__device__ __forceinline__ int64_t number_of(const AttentionShape& a, const Sequence& s, int head,
                                             int query) {
  return head * (a.cu_seqlens ? a.queries : a.batch * a.queries) + s.first_token + query;
}

__device__ __forceinline__ Sequence sequence(const AttentionShape& a, int b) {
  const int queries = static_cast<int>(a.queries), keys = static_cast<int>(a.keys);
  Sequence s{b,
             0,
             queries,
             0,
             keys,
             keys,
             static_cast<int64_t>(b) * queries,
             static_cast<int>(a.left),
             static_cast<int>(a.right)};
  const bool exists = b < a.batch;
  if (a.cu_seqlens) {
    const int32_t* cu_k = a.cu_seqlens_k ? a.cu_seqlens_k : a.cu_seqlens;
    s.first_token = s.q_begin = a.cu_seqlens[b];
    s.q_len = (exists ? a.cu_seqlens[b + 1] : queries) - s.q_begin;
    s.k_begin = cu_k[b];
    s.k_all = (exists ? cu_k[b + 1] : keys) - s.k_begin;
    s.k_len = exists ? s.k_all : 0;
  }
  if (a.seqused_k && exists) s.k_len = a.seqused_k[b];
  return s;
}

// --- scores --------------------------------------------------------------------------------------
// A run is the part of a warp's tile (16 queries, 32 keys) that a lane has: c[i] has the columns
// 8 i + 2 (lane % 4) + {0, 1} of rows lane / 4 and lane / 4 + 8, as mma leaves it.
using Run = float[4][4];

// s += x y^T over 16 dims: x an operand, rows `row` .. row + 31 of y.
template <class T, int kStep, int kDim>
__device__ __forceinline__ void add_step(Run& s, const uint32_t (&x)[4], const Tile<T, kDim>& y,
                                         int row, int step) {
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    uint32_t b[4];
    load_b(b, y, row + 16 * pair, 2 * step);
    multiply<T, kStep>(s[2 * pair], x, b[0], b[1]);
    multiply<T, kStep>(s[2 * pair + 1], x, b[2], b[3]);
  }
}

// o += p y, of those rows of y.
template <class T, int kStep, int kDim>
__device__ __forceinline__ void add_weighted(float (&o)[kDim / 8][4], const Run& p,
                                             const Tile<T, kDim>& y, int row) {
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    const float (&low)[4] = p[2 * pair];
    const float (&high)[4] = p[2 * pair + 1];
    const uint32_t a[4] = {pack<T>(low[0], low[1]), pack<T>(low[2], low[3]),
                           pack<T>(high[0], high[1]), pack<T>(high[2], high[3])};
#pragma unroll
    for (int dims = 0; dims < kDim / 16; ++dims) {
      uint32_t b[4];
      load_b_of_columns(b, y, row + 16 * pair, 2 * dims);
      multiply<T, kStep>(o[2 * dims], a, b[0], b[1]);
      multiply<T, kStep>(o[2 * dims + 1], a, b[2], b[3]);
    }
  }
}

// What is the same for all scores of a head.
struct Head {
  float factor;  // scale log2(e)
  float slope;   // of ALiBi, in units of the scores before `scale`; 0: none
  int keys;      // of the sequence
  int left;      // keys before its own that a query sees, and with those after it:
  uint32_t span;
  uint32_t plane;
  uint32_t threshold;
  uint64_t key;
  bool drops;
};

__device__ __forceinline__ Head head_of(const AttentionShape& a, const Sequence& s, int head) {
  const bool slopes = a.alibi_slopes && s.index < a.batch;
  return {a.scale * kLog2E,
          slopes ? a.alibi_slopes[s.index * a.alibi_batch + head] / a.scale : 0.0f,
          s.k_len,
          s.left,
          static_cast<uint32_t>(s.left) + static_cast<uint32_t>(s.right),
          static_cast<uint32_t>(s.index * a.heads + head),
          static_cast<uint32_t>(a.dropout.threshold),
          a.dropout.seed ? static_cast<uint64_t>(*a.dropout.seed) : 0,
          a.dropout.seed != nullptr};
}

// A lane's two queries are `row` and row + 8; the key of the first is `own`.
struct Queries {
  int row, own;
};
__device__ __forceinline__ Queries queries_of(const Sequence& s, int first) {
  const int row = first + lane() / 4;
  return {row, s.own(row)};
}

// Of a quadruple, element j is of query j / 2. Its column, relative to the run:
__device__ __forceinline__ int column(int i, int j) { return 8 * i + 2 * (lane() % 4) + j % 2; }

// How far the key of c[i][j] in the run from key `first` on is behind the query's own.
__device__ __forceinline__ int distance(const Queries& q, int first, int i, int j) {
  return first + column(i, j) - q.own - j / 2 * 8;
}

// The bias -slope |distance|.
__device__ __forceinline__ void add_alibi(Run& s, const Head& head, const Queries& q, int first) {
  if (head.slope == 0.0f) return;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float behind = static_cast<float>(distance(q, first, 0, j));
#pragma unroll
    for (int i = 0; i < 4; ++i) s[i][j] -= head.slope * fabsf(behind + static_cast<float>(8 * i));
  }
}

__device__ __forceinline__ bool sees(const Head& head, const Queries& q, int first, int i, int j) {
  const auto behind_first = static_cast<uint32_t>(distance(q, first, i, j) + head.left);
  return behind_first <= head.span && first + column(i, j) < head.keys;
}

// Calls f(i, j, kept) for each score of the run from key `first` on.
template <class F>
__device__ __forceinline__ void for_each(const Head& head, const Queries& q, int first, F&& f) {
  const uint32_t word0 = static_cast<uint32_t>(first / kRunColumns * 4 + lane() % 4);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Numbers numbers{};  // threshold is 0 where nothing is dropped
    if (head.drops) numbers = philox(word0, q.row + 8 * half, head.plane, head.key);
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int e = 0; e < 2; ++e) f(i, 2 * half + e, numbers[2 * i + e] >= head.threshold);
  }
}

}  // namespace bigfast::cuda
