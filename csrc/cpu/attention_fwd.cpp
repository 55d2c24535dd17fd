// o = dropout(softmax(scale q k^T + mask)) v, and lse, the log of each row's sum of exponentials.
//
// A task is a run of queries of all query heads that share one key head of one sequence. It walks
// over blocks of keys; K and V are packed once per block and meet all rows of the task. A strip of
// a few rows stays in L1 from its scores to its share of o. Of each row the largest score, the sum
// of exponentials below it and, where there is more than one block, o itself are carried along and
// rescaled when a larger score comes. Rows do not depend on how they are split into tasks.
#include "cpu/attention.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int64_t kStrip = 24;  // rows between scores and probabilities

// What is known of a row: its largest score (times log2 e) and the sum of 2^(score - top).
struct Row {
  float top = -kInfinity, sum = 0.0f;
};

// p = e^(scale s) 2^-top of the scores [from, to), and 0 in the rest of [0, padded). Returns what
// the sum, and so o, had to be multiplied with.
template <class E>
float softmax_row(float* s, int64_t from, int64_t to, int64_t padded, float scale,
                  const uint8_t* bits, Row& row, E* p) {
  const int64_t begin = from / F::W * F::W;
  for (int64_t i = begin; i < from; ++i) s[i] = kLowest;
  for (int64_t i = to; i % F::W; ++i) s[i] = kLowest;
  F top(-kInfinity);
  for (int64_t i = begin; i < to; i += F::W) top = max(top, load(s + i));
  const float c = static_cast<float>(scale * kLog2E);
  const float before = row.top, now = __builtin_fmaxf(before, c * max_lane(top));
  const Weight<E> weight(scale, now == -kInfinity ? 0.0f : now);
  for (int64_t i = 0; i < begin; i += F::W) store(p + i, F(0.0f));
  F sums(0.0f);
  for (int64_t i = begin; i < to; i += F::W) {
    F e = weight(load(s + i));
    sums = sums + e;
    if (bits) e = where_bits(bits, i, e);
    store(p + i, e);
  }
  for (int64_t i = max(begin, round_up(to, F::W)); i < padded; i += F::W) store(p + i, F(0.0f));
  const float shrink = before == now ? 1.0f : __builtin_exp2f(before - now);
  row.top = now;
  row.sum = row.sum * shrink + sum(sums);
  return shrink;
}

// One task's memory, for blocks of `block` keys.
template <class E>
struct ForwardScratch {
  int64_t dim, width, block;  // of a row of o: dim, rounded up to whole vectors
  Scratch<E> k_memory, v_memory, q_rows, p;
  Scratch<float> scores, o;
  Scratch<Row> rows;
  Scratch<uint8_t> bits;
  Panels<E> k, v;

  ForwardScratch(int64_t dim, int64_t block, int64_t rows_kept, int64_t rows_all)
      : dim(dim),
        width(round_up(dim, F::W)),
        block(block),
        k_memory(panels_size<E>(groups_of<E>(dim), block)),
        v_memory(panels_size<E>(groups_of<E>(block), dim)),
        q_rows(kStrip * dim),
        p(kStrip * block),
        scores(kStrip * block),
        o(rows_kept * width),
        rows(rows_all),
        bits(score_keep_bytes(block)),
        k{k_memory, panel_stride<E>(groups_of<E>(dim))},
        v{v_memory, panel_stride<E>(groups_of<E>(block))} {}
};

// Rows [begin, begin + rows) of one head against the packed keys [first, first + n). `starts`:
// these are the first keys of the task.
template <class E, class T>
void strip(const AttentionForward& a, const Sequence& s, int64_t head, int64_t begin, int64_t rows,
           int64_t first, int64_t n, bool starts, ForwardScratch<E>& memory, Row* row, float* o) {
  const int64_t dim = memory.dim, block = memory.block, width = memory.width;
  const uint32_t plane = static_cast<uint32_t>(s.index * a.shape.heads + head);
  const Dropout& dropout = a.shape.dropout;
  const Alibi alibi(a.shape, s.index, head);
  const Columns see = columns_of(s, begin, rows, first, n);
  const int64_t mine = see.to - see.from, start = first + see.from;
  const bool ends = s.to(begin + rows - 1) <= first + block;
  if (mine == 0 && !starts) return;

  const T* q = row_of<T>(a.q, s.index, s.q_begin + begin, head);
  T* out = row_of<T>(a.o, s.index, s.q_begin + begin, head);
  if (ends) prefetch_rows<true>(out, a.o.token, rows, dim);
  const auto q_rows = a_rows<E>(q, a.q.token, rows, dim, memory.q_rows);
  product(q_rows.data, q_rows.ld, memory.k.from_column(see.from), rows, mine, dim / kGroup<E>,
          memory.scores, block, false);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t to = min(mine, max(0, s.to(begin + i) - start));
    const int64_t from = min(to, max(0, s.from(begin + i) - start));
    float* scores = memory.scores + i * block;
    alibi.add(scores, from, to, start - s.own(begin + i));
    if (dropout.seed) score_keep_bits(dropout, plane, begin + i, start, to, memory.bits);
    const float shrink = softmax_row(scores, from, to, mine, a.shape.scale,
                                     dropout.seed ? static_cast<uint8_t*>(memory.bits) : nullptr,
                                     row[i], memory.p + i * block);
    if (starts || shrink == 1.0f) continue;
    for (int64_t j = 0; j < width; j += F::W)
      store(o + i * width + j, F(shrink) * load(o + i * width + j));
  }
  product(static_cast<const E*>(memory.p), block, memory.v.from_group(see.from / kGroup<E>), rows,
          dim, groups_of<E>(mine), o, width, !starts);
  if (!ends) return;
  for (int64_t i = 0; i < rows; ++i) {
    const F factor(row[i].sum == 0.0f ? 0.0f : dropout.scale / row[i].sum);
    columns(dim, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      store(out + i * a.o.token + j, factor * load(o + i * width + j), lanes);
    });
    a.lse[head * a.shape.tokens() + s.first_token + begin + i] =
        static_cast<float>(kLn2 * row[i].top + __builtin_logf(row[i].sum));
  }
}

// Queries [begin, end) of the heads that share kv_head.
template <class E, class T>
void forward_task(const AttentionForward& a, const Sequence& s, int64_t kv_head, int64_t begin,
                  int64_t end) {
  const int64_t dim = a.shape.dim, heads = a.shape.heads / a.shape.kv_heads, rows = end - begin;
  const int64_t keys = s.to(end - 1);
  // What is packed takes half of an L2 cache at most; dropout works in runs of 128 keys.
  const int64_t most = max(128, 65536 / (dim * int64_t(sizeof(E))) / 128 * 128);
  const int64_t block = min(most, round_up(max(keys, 1), 128));
  const int64_t start = min(s.from(begin), max(0, keys - 1)) / block * block;
  const bool single = keys <= start + block;
  ForwardScratch<E> memory(dim, block, single ? kStrip : heads * rows, heads * rows);
  for (int64_t i = 0; i < heads * rows; ++i) memory.rows[i] = Row();

  for (int64_t first = start; first == start || first < keys; first += block) {
    const Columns see = columns_of(s, begin, rows, first, min(block, keys - first));
    const int64_t n = see.to - see.from, token = s.k_begin + first + see.from;
    const T* k = row_of<T>(a.k, s.index, token, kv_head);
    const T* v = row_of<T>(a.v, s.index, token, kv_head);
    prefetch_rows(k, a.k.token, n, dim);
    prefetch_rows(v, a.v.token, n, dim);
    if (first == start)
      prefetch_rows(row_of<T>(a.q, s.index, s.q_begin + begin, kv_head * heads), a.q.token, rows,
                    dim);
    pack_columns(k, a.k.token, n, dim, memory.k.from_column(see.from));
    pack_rows(v, a.v.token, n, dim, memory.v.from_group(see.from / kGroup<E>));
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < rows; i += kStrip) {
        const int64_t at = h * rows + i;
        strip<E, T>(a, s, kv_head * heads + h, begin + i, min(kStrip, rows - i), first, see.to,
                    first == start, memory, memory.rows + at,
                    memory.o + (single ? 0 : at * memory.width));
      }
    }
  }
}

// Rows of a task: many, so that packing K and V is little beside their use; but tasks for all.
int64_t rows_per_task(const AttentionShape& a, int64_t group) {
  int64_t rows = max(kStrip, 512 / group);
  while (rows > 2 * kStrip && a.tokens() / rows * a.kv_heads < 24) rows /= 2;
  return round_up(rows, kStrip);
}

}  // namespace

void attention_fwd(const AttentionForward& a) noexcept {
  const AttentionShape& shape = a.shape;
  const int64_t step = rows_per_task(shape, shape.heads / shape.kv_heads);
  // ends[b]: tasks of one key head in the sequences up to b.
  Scratch<int64_t> ends(shape.batch);
  int64_t runs = 0;
  for (int64_t b = 0; b < shape.batch; ++b)
    ends[b] = runs += (sequence(shape, b).q_len + step - 1) / step;
  dispatch_types(shape, [&](auto e, auto t) {
    auto body = [&](int64_t task) {
      const int64_t kv_head = task / runs, run = task % runs;
      int64_t low = 0, high = shape.batch - 1;  // the first b with run < ends[b]
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (run < ends[middle])
          high = middle;
        else
          low = middle + 1;
      }
      const Sequence s = sequence(shape, low);
      const int64_t begin = (run - (low ? ends[low - 1] : 0)) * step;
      forward_task<decltype(e), decltype(t)>(a, s, kv_head, begin, min(begin + step, s.q_len));
    };
    parallel_tasks(runs * shape.kv_heads, body);
  });
  if (shape.cu_seqlens) {
    const int64_t used = shape.cu_seqlens[shape.batch];
    zero_tail(a.o, used, shape.queries, shape.dtype);
    for (int64_t h = 0; h < shape.heads; ++h)
      for (int64_t i = used; i < shape.queries; ++i) a.lse[h * shape.queries + i] = -kInfinity;
  }
}

}  // namespace bigfast::cpu::BIGFAST_ISA
