// Gradients of o = D(P) v, with P = exp(scale q k^T - lse) and D the dropout:
//
//   dv = D(P)^T do;   dP = D(do v^T);   delta = rowsum(do o);   dS = P (dP - delta)
//   dq = scale dS k;   dk = scale dS^T q
//
// P is computed again, block by block. A task is one key head of one sequence: it walks over blocks
// of keys, and within one over the blocks of queries of all heads that share the key head, so dk
// and dv stay in fp32 scratch until they are done, and dq is carried along in fp32. Where there are
// few key heads, several tasks share one: each takes every n-th block of keys, and their shares
// of dq are added in order afterwards. All of that depends on shapes alone; nothing is atomic.
//
// Scores stand with queries as rows, as dropout numbers them. As B operands P and dS are packed
// right where they are computed; so dk and dv come out transposed, and are turned at the end.
#include <type_traits>

#include "cpu/attention.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int64_t kStrip = 24;   // rows between scores and their gradients
constexpr int64_t kBlock = 128;  // queries between P and dv

// One task's memory, for blocks of `block` keys.
template <class E>
struct BackwardScratch {
  int64_t dim, width, block;  // of a row of dq: dim, rounded up to whole vectors
  Scratch<E> kt_memory, vt_memory, k_memory, p_memory, ds_memory, q_rows, do_rows, qt, dot, ds_rows;
  Scratch<float> scores, dp, dkt, dvt, dq, delta;
  Scratch<uint8_t> bits;
  Panels<E> kt, vt, k;  // B operands: k^T, v^T, k
  Panels<E> p, ds;      // B operands: D(P) without its scale, and dS, of a block of queries

  BackwardScratch(int64_t dim, int64_t block, int64_t dq_rows)
      : dim(dim),
        width(round_up(dim, F::W)),
        block(block),
        kt_memory(panels_size<E>(groups_of<E>(dim), block)),
        vt_memory(panels_size<E>(groups_of<E>(dim), block)),
        k_memory(panels_size<E>(groups_of<E>(block), dim)),
        p_memory(panels_size<E>(groups_of<E>(kBlock), block)),
        ds_memory(panels_size<E>(groups_of<E>(kBlock), block)),
        q_rows(kStrip * dim),
        do_rows(kStrip * dim),
        qt(dim * kBlock),
        dot(dim * kBlock),
        ds_rows(kStrip * block),
        scores(kStrip * block),
        dp(kStrip * block),
        dkt(dim * block),
        dvt(dim * block),
        dq(dq_rows * width),
        delta(kBlock),
        bits(kGroup<E> * score_keep_bytes(block)),
        kt{kt_memory, panel_stride<E>(groups_of<E>(dim))},
        vt{vt_memory, panel_stride<E>(groups_of<E>(dim))},
        k{k_memory, panel_stride<E>(groups_of<E>(block))},
        p{p_memory, panel_stride<E>(groups_of<E>(kBlock))},
        ds{ds_memory, panel_stride<E>(groups_of<E>(kBlock))} {}
};

// to = factor x, row by row.
template <class T>
void scale_rows(const float* x, int64_t ld, int64_t rows, int64_t dim, float factor, T* to,
                int64_t ld_to) {
  for (int64_t i = 0; i < rows; ++i) {
    columns(dim, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      store(to + i * ld_to + j, F(factor) * load(x + i * ld + j), lanes);
    });
  }
}

// to (rows, dim) = factor x^T, for x (dim, ld).
template <class T>
void turn_rows(const float* x, int64_t ld, int64_t rows, int64_t dim, float factor, T* to,
               int64_t ld_to) {
  for (int64_t i = 0; i < rows; i += F::W) {
    const int64_t n = min(F::W, rows - i);
    columns(dim, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      F block[F::W];
      for (int64_t u = 0; u < F::W; ++u)
        block[u] = j + u < dim ? F(factor) * load(x + (j + u) * ld + i) : F(0.0f);
      transpose(block);
      for (int64_t u = 0; u < n; ++u) store(to + (i + u) * ld_to + j, block[u], lanes);
    });
  }
}

template <class T>
float dot_rows(const T* x, const T* y, int64_t n) {
  F total(0.0f);
  columns(n, [&](int64_t j, auto lanes)
                 BIGFAST_LAMBDA { total = fma(load(x + j, lanes), load(y + j, lanes), total); });
  return sum(total);
}

// A row of scores and of do v^T, on its way to P and dS.
template <class E>
struct ScoreRow {
  float *s, *dp;
  int64_t from, to;  // visible scores
  Weight<E> weight;
  F delta;
  const uint8_t* bits;  // of the scores from the block's first column on
};

// W scores: P without what was dropped, and dS. kEdge: not all of them are visible.
template <class E, bool kEdge>
BIGFAST_INLINE void gradient(const ScoreRow<E>& row, int64_t j, int64_t bit, F keep_scale, F& p,
                             F& ds) {
  const auto lane = [&](int64_t column) { return static_cast<int>(min(F::W, max(0, column - j))); };
  p = row.weight(load(row.s + j));
  if constexpr (kEdge) p = between_lanes(p, lane(row.from), lane(row.to));
  F dp = load(row.dp + j);
  F kept = p;
  if (row.bits) {
    dp = where_bits(row.bits, bit, dp * keep_scale);
    kept = where_bits(row.bits, bit, p);
  }
  ds = p * (dp - row.delta);
  if constexpr (kEdge) ds = between_lanes(ds, lane(row.from), lane(row.to));
  p = kept;
}

// What a block of queries of one head is, for a block of keys.
struct Block {
  int64_t head, begin, rows;  // queries
  int64_t first;              // key of column 0
  Columns see;                // columns that some of the queries see
};

// Row i + r of the block; beyond the last of a strip of `rows` rows: one that sees nothing.
template <class E, class T>
ScoreRow<E> score_row(const AttentionBackward& a, const Sequence& s, const Block& block, int64_t i,
                      int64_t r, int64_t rows, BackwardScratch<E>& memory) {
  const int64_t at = i + min(r, rows - 1), query = block.begin + at;
  const int64_t to = r < rows ? min(block.see.to, max(0, s.to(query) - block.first)) : 0;
  const int64_t from = min(to, max(0, s.from(query) - block.first));
  const double lse = a.lse[block.head * a.shape.tokens() + s.first_token + query];
  uint8_t* bits = nullptr;
  if (a.shape.dropout.seed) {
    bits = memory.bits + r % kGroup<E> * score_keep_bytes(memory.block);
    const uint32_t plane = static_cast<uint32_t>(s.index * a.shape.heads + block.head);
    score_keep_bits(a.shape.dropout, plane, query, block.first + block.see.from,
                    to - block.see.from, bits);
  }
  return {memory.scores + r * memory.block,       memory.dp + r * memory.block, from, to,
          Weight<E>(a.shape.scale, lse * kLog2E), F(memory.delta[at]),          bits};
}

// Scores of rows [i, i + rows) of the block -> P and dS as B operands, dS as rows.
template <class E, class T>
void score_gradients(const AttentionBackward& a, const Sequence& s, const Block& block, int64_t i,
                     int64_t rows, BackwardScratch<E>& memory) {
  const int64_t ld = memory.block;
  const F keep_scale(a.shape.dropout.scale);
  for (int64_t r = 0; r < rows; r += kGroup<E>) {
    const ScoreRow<E> row[2] = {score_row<E, T>(a, s, block, i, r, rows, memory),
                                score_row<E, T>(a, s, block, i, r + kGroup<E> - 1, rows, memory)};
    const int64_t from = max(row[0].from, row[kGroup<E> - 1].from);
    const int64_t to = min(row[0].to, row[kGroup<E> - 1].to);
    E* ds_rows = memory.ds_rows + r * ld;
    const int64_t group = (i + r) / kGroup<E>;
    auto vectors = [&](int64_t j, auto edge) BIGFAST_LAMBDA {
      F p[kGroup<E>], ds[kGroup<E>];
      for (int u = 0; u < kGroup<E>; ++u) {
        gradient<E, decltype(edge)::value>(row[u], j, j - block.see.from, keep_scale, p[u], ds[u]);
        store(ds_rows + u * ld + j, ds[u]);
      }
      store_groups(memory.p.at(group, j), make_groups(p, E{}));
      store_groups(memory.ds.at(group, j), make_groups(ds, E{}));
    };
    int64_t j = block.see.from;
    for (; j < from && j < block.see.to; j += F::W) vectors(j, std::true_type{});
    for (; j + F::W <= to; j += F::W) vectors(j, std::false_type{});
    for (; j < block.see.to; j += F::W) vectors(j, std::true_type{});
  }
}

// Adds one block of queries' share to dk, dv and dq, which is where the block's rows begin; where
// there is but a single block of keys, dq is written out instead.
template <class E, class T>
void query_block(const AttentionBackward& a, const Sequence& s, const Block& block, bool single,
                 float* dq, BackwardScratch<E>& memory) {
  const int64_t dim = memory.dim, ld = memory.block, width = memory.width;
  const int64_t token = s.q_begin + block.begin;
  const T* q = row_of<T>(a.q, s.index, token, block.head);
  const T* grad_o = row_of<T>(a.grad_o, s.index, token, block.head);
  const T* o = row_of<T>(a.o, s.index, token, block.head);
  prefetch_rows(q, a.q.token, block.rows, dim);
  prefetch_rows(grad_o, a.grad_o.token, block.rows, dim);
  prefetch_rows(o, a.o.token, block.rows, dim);
  pack_transposed_rows(q, a.q.token, block.rows, dim, static_cast<E*>(memory.qt), kBlock);
  pack_transposed_rows(grad_o, a.grad_o.token, block.rows, dim, static_cast<E*>(memory.dot),
                       kBlock);
  for (int64_t i = 0; i < block.rows; ++i)
    memory.delta[i] = dot_rows(o + i * a.o.token, grad_o + i * a.grad_o.token, dim);
  for (int64_t i = 0; i < block.rows; i += kStrip) {
    const int64_t rows = min(kStrip, block.rows - i);
    const Columns see = columns_of(s, block.begin + i, rows, block.first, block.see.to);
    const int64_t n = see.to - see.from;
    const auto q_rows = a_rows<E>(q + i * a.q.token, a.q.token, rows, dim, memory.q_rows);
    const auto do_rows =
        a_rows<E>(grad_o + i * a.grad_o.token, a.grad_o.token, rows, dim, memory.do_rows);
    const int64_t dims = dim / kGroup<E>;
    product(q_rows.data, q_rows.ld, memory.kt.from_column(see.from), rows, n, dims,
            memory.scores + see.from, ld, false);
    product(do_rows.data, do_rows.ld, memory.vt.from_column(see.from), rows, n, dims,
            memory.dp + see.from, ld, false);
    const Alibi alibi(a.shape, s.index, block.head);
    for (int64_t r = 0; r < rows; ++r)
      alibi.add(memory.scores + r * ld, see.from, see.to, block.first - s.own(block.begin + i + r));
    score_gradients<E, T>(a, s, block, i, rows, memory);
    float* strip_dq = single ? memory.dq : dq + i * width;
    product(memory.ds_rows + see.from, ld, memory.k.from_group(see.from / kGroup<E>), rows, dim,
            groups_of<E>(n), strip_dq, width, !single);
    if (single) {
      T* to = row_of<T>(a.dq, s.index, token + i, block.head);
      scale_rows(strip_dq, width, rows, dim, a.shape.scale, to, a.dq.token);
    }
  }
  const int64_t queries = groups_of<E>(block.rows), from = block.see.from;
  product(static_cast<const E*>(memory.dot), kBlock, memory.p.from_column(from), dim,
          block.see.to - from, queries, memory.dvt + from, ld, true);
  product(static_cast<const E*>(memory.qt), kBlock, memory.ds.from_column(from), dim,
          block.see.to - from, queries, memory.dkt + from, ld, true);
}

// Every `shares`-th block of keys of one key head, from block `share` on. dq_shared: this share's
// (heads, tokens, width), or null where there is but one share.
template <class E, class T>
void backward_task(const AttentionBackward& a, const Sequence& s, int64_t kv_head, int64_t block,
                   int64_t share, int64_t shares, float* dq_shared) {
  const AttentionShape& shape = a.shape;
  const int64_t dim = shape.dim, heads = shape.heads / shape.kv_heads, tokens = shape.tokens();
  block = min(block, round_up(max(s.k_len, 1), 128));
  const bool single = !dq_shared && s.k_len <= block;
  BackwardScratch<E> memory(dim, block, dq_shared ? 0 : single ? kStrip : heads * s.q_len);
  float* dq = memory.dq;  // of head 0 and query 0
  int64_t head_stride = s.q_len * memory.width;
  if (dq_shared) {
    head_stride = tokens * memory.width;
    dq = dq_shared + kv_head * heads * head_stride + s.first_token * memory.width;
  }
  if (!single)
    for (int64_t h = 0; h < heads; ++h)
      std::memset(dq + h * head_stride, 0, s.q_len * memory.width * sizeof(float));

  for (int64_t first = share * block; first < max(s.k_len, single); first += shares * block) {
    const int64_t n = min(block, s.k_len - first), token = s.k_begin + first;
    const T* k = row_of<T>(a.k, s.index, token, kv_head);
    const T* v = row_of<T>(a.v, s.index, token, kv_head);
    prefetch_rows(k, a.k.token, n, dim);
    prefetch_rows(v, a.v.token, n, dim);
    pack_columns(k, a.k.token, n, dim, memory.kt);
    pack_columns(v, a.v.token, n, dim, memory.vt);
    pack_rows(k, a.k.token, n, dim, memory.k);
    std::memset(memory.dkt, 0, dim * block * sizeof(float));
    std::memset(memory.dvt, 0, dim * block * sizeof(float));
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t begin = 0; begin < s.q_len; begin += kBlock) {
        const int64_t rows = min(kBlock, s.q_len - begin);
        const Columns see = columns_of(s, begin, rows, first, n);
        if (see.from == see.to && !single) continue;
        query_block<E, T>(a, s, {kv_head * heads + h, begin, rows, first, see}, single,
                          dq + h * head_stride + begin * memory.width, memory);
      }
    }
    turn_rows(memory.dkt, block, n, dim, shape.scale, row_of<T>(a.dk, s.index, token, kv_head),
              a.dk.token);
    turn_rows(memory.dvt, block, n, dim, shape.dropout.scale,
              row_of<T>(a.dv, s.index, token, kv_head), a.dv.token);
  }
  if (!single && !dq_shared)
    for (int64_t h = 0; h < heads; ++h)
      scale_rows(dq + h * head_stride, memory.width, s.q_len, dim, shape.scale,
                 row_of<T>(a.dq, s.index, s.q_begin, kv_head * heads + h), a.dq.token);
  if (share == 0) {
    for (int64_t i = s.k_len; i < s.k_all; ++i) {
      std::memset(row_of<T>(a.dk, s.index, s.k_begin + i, kv_head), 0, dim * sizeof(T));
      std::memset(row_of<T>(a.dv, s.index, s.k_begin + i, kv_head), 0, dim * sizeof(T));
    }
  }
}

// Shares of dq (shares, heads, tokens, width), added in order -> dq.
template <class T>
void add_shares(const AttentionBackward& a, float* dq, int64_t shares, int64_t tokens,
                int64_t width) {
  const int64_t all = a.shape.tokens(), share_size = a.shape.heads * all * width;
  constexpr int64_t kRows = 64;
  const int64_t runs = (tokens + kRows - 1) / kRows;
  auto body = [&](int64_t task) {
    const int64_t head = task / runs, begin = task % runs * kRows;
    const int64_t rows = min(kRows, tokens - begin);
    float* sum = dq + (head * all + begin) * width;
    for (int64_t share = 1; share < shares; ++share)
      for (int64_t j = 0; j < rows * width; j += F::W)
        store(sum + j, load(sum + j) + load(sum + share * share_size + j));
    // dq is contiguous: a dense batch is one run of tokens, too.
    scale_rows(sum, width, rows, a.shape.dim, a.shape.scale, row_of<T>(a.dq, 0, begin, head),
               a.dq.token);
  };
  parallel_tasks(runs * a.shape.heads, body);
}

// Keys of a block, so that all that a task works on takes some 600 KB: most of an L2 cache of 1 MB.
template <class E>
int64_t keys_per_block(int64_t dim) {
  const int64_t each = int64_t(sizeof(E)) * (3 * dim + 2 * kBlock) + 4 * (2 * dim + 2 * kStrip);
  return max(128, 655360 / each / 128 * 128);  // dropout works in runs of 128 keys
}

// How many tasks share a key head: 1, unless there are too few heads for a number of threads.
int64_t shares_of(const AttentionShape& a, int64_t block) {
  int64_t longest = 0;
  for (int64_t b = 0; b < a.batch; ++b) longest = max(longest, sequence(a, b).k_len);
  const int64_t heads = max(1, a.batch * a.kv_heads);
  return max(1, min(min(4, (15 + heads) / heads), (longest + block - 1) / block));
}

}  // namespace

void attention_bwd(const AttentionBackward& a) noexcept {
  const AttentionShape& shape = a.shape;
  dispatch_types(shape, [&](auto e, auto t) {
    using E = decltype(e);
    using T = decltype(t);
    const int64_t block = keys_per_block<E>(shape.dim), width = round_up(shape.dim, F::W);
    const int64_t shares = shares_of(shape, block), tokens = shape.tokens();
    const int64_t share_size = shape.heads * tokens * width;
    Scratch<float> dq(shares > 1 ? shares * share_size : 0);
    auto body = [&](int64_t task) {
      const int64_t share = task % shares, head = task / shares;
      const Sequence s = sequence(shape, head / shape.kv_heads);
      backward_task<E, T>(a, s, head % shape.kv_heads, block, share, shares,
                          shares > 1 ? dq + share * share_size : nullptr);
    };
    parallel_tasks(shape.batch * shape.kv_heads * shares, body);
    const int32_t* cu = shape.cu_seqlens;
    if (shares > 1) add_shares<T>(a, dq, shares, cu ? cu[shape.batch] : tokens, width);
  });
  if (shape.cu_seqlens) {
    const int32_t* cu_k = shape.cu_seqlens_k ? shape.cu_seqlens_k : shape.cu_seqlens;
    zero_tail(a.dq, shape.cu_seqlens[shape.batch], shape.queries, shape.dtype);
    zero_tail(a.dk, cu_k[shape.batch], shape.keys, shape.dtype);
    zero_tail(a.dv, cu_k[shape.batch], shape.keys, shape.dtype);
  }
}

}  // namespace bigfast::cpu::BIGFAST_ISA
