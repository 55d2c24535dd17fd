// r = word[id] + position[position id] + token_type[type id];  y = dropout((r - mean) rstd w + b)
//
// Forward: one row at a time, gathered once into an fp32 buffer that stays in L1. Backward gathers
// r again instead of reading a stored one, and leaves dr of every token in fp32; with
// h = (r - mean) rstd and g = dropout(dy) w:
//   dr = rstd (g - avg(g) - h avg(g h));   dw = sum dropout(dy) h;   db = sum dropout(dy)
// Then each table's gradient is a sum of rows of dr: the tokens of a table row are chained in
// ascending order, and tasks own blocks of table rows, so that every row is written once, by one
// task, and no thread count changes a bit.
#include "cpu/embedding.h"

#include "cpu/parallel.h"
#include "cpu/philox.h"
#include "cpu/rows.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// The rows of the tables that token t adds up; null where there is no such table.
template <class W>
struct Terms {
  const W *word, *position, *token_type;

  template <class Args>
  BIGFAST_INLINE Terms(const Args& a, int64_t t)
      : word(row(a.word, t, a.features)),
        position(row(a.position, t, a.features)),
        token_type(row(a.token_type, t, a.features)) {}

  static const W* row(const EmbeddingTable& table, int64_t t, int64_t n) {
    return table.weight ? static_cast<const W*>(table.weight) + table.index[t] * n : nullptr;
  }

  template <class Lanes>
  BIGFAST_INLINE F sum(int64_t i, Lanes lanes) const {
    F v = load(word + i, lanes);
    if (position) v = v + load(position + i, lanes);
    if (token_type) v = v + load(token_type + i, lanes);
    return v;
  }
};

template <class W, class Y>
void rows_fwd(const EmbeddingForward& a, const float* weight, const float* bias, int64_t begin,
              int64_t end) {
  const int64_t n = a.features;
  Scratch<float> row(n);
  Scratch<uint8_t> bits(keep_bytes(n));
  const bool drop = a.dropout.seed != nullptr;
  const F scale(a.dropout.scale);
  for (int64_t t = begin; t < end; ++t) {
    const Terms<W> terms(a, t);
    Y* y = static_cast<Y*>(a.y) + t * n;
    if (drop) row_keep_bits(a.dropout, t, n, bits);
    Sum total;
    columns4(n, [&](int64_t i, auto lanes, int k) BIGFAST_LAMBDA {
      const F v = terms.sum(i, lanes);
      store(row + i, v, lanes);
      total.part[k] = total.part[k] + v;
    });
    float mean = 0.0f, rstd = 1.0f;
    if (weight) {
      mean = total.total() / static_cast<float>(n);
      Sum squares;
      columns4(n, [&](int64_t i, auto lanes, int k) BIGFAST_LAMBDA {
        const F d = only(load(row + i, lanes) - F(mean), lanes);
        squares.part[k] = fma(d, d, squares.part[k]);
      });
      rstd = 1.0f / __builtin_sqrtf(squares.total() / static_cast<float>(n) + a.eps);
      a.mean[t] = mean;
      a.rstd[t] = rstd;
    }
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      F v = load(row + i, lanes);
      if (weight) v = (v - F(mean)) * F(rstd) * load(weight + i, lanes);
      if (bias) v = v + load(bias + i, lanes);
      if (drop) v = where_bits(bits, i, v * scale);
      store(y + i, v, lanes);
    });
  }
}

// dr of tokens begin..end. dweight and dbias, sums in fp32, are null without norm.
template <class W, class Y>
void rows_bwd(const EmbeddingBackward& a, const float* weight, int64_t begin, int64_t end,
              float* dr_all, float* dweight, float* dbias) {
  const int64_t n = a.features;
  Scratch<float> g(n), h(n);
  Scratch<uint8_t> bits(keep_bytes(n));
  const bool drop = a.dropout.seed != nullptr;
  const F scale(a.dropout.scale);
  for (int64_t t = begin; t < end; ++t) {
    const Y* dy = static_cast<const Y*>(a.dy) + t * n;
    float* dr = dr_all + t * n;
    if (drop) row_keep_bits(a.dropout, t, n, bits);
    const auto gradient = [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F d = load(dy + i, lanes);
      return drop ? where_bits(bits, i, d * scale) : d;
    };
    if (!weight) {
      columns(n, [&](int64_t i, auto lanes)
                     BIGFAST_LAMBDA { store(dr + i, gradient(i, lanes), lanes); });
      continue;
    }
    const Terms<W> terms(a, t);
    const F mean(a.mean[t]), rstd(a.rstd[t]);
    Sum sum_g, sum_gh;
    columns4(n, [&](int64_t i, auto lanes, int k) BIGFAST_LAMBDA {
      const F d = gradient(i, lanes);
      const F hat = (terms.sum(i, lanes) - mean) * rstd;
      const F gi = d * load(weight + i, lanes);
      store(h + i, hat, lanes);
      store(g + i, gi, lanes);
      store(dweight + i, fma(d, hat, load(dweight + i, lanes)), lanes);
      store(dbias + i, d + load(dbias + i, lanes), lanes);
      sum_g.part[k] = sum_g.part[k] + gi;
      sum_gh.part[k] = fma(gi, hat, sum_gh.part[k]);
    });
    const F avg_g(sum_g.total() / static_cast<float>(n));
    const F avg_gh(sum_gh.total() / static_cast<float>(n));
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F d = load(g + i, lanes) - avg_g - load(h + i, lanes) * avg_gh;
      store(dr + i, d * rstd, lanes);
    });
  }
}

// The tokens of each row of a table, as chains in ascending order.
struct Chains {
  Scratch<int32_t> first;  // (rows): a row's first token, or -1
  Scratch<int32_t> next;   // (tokens): the next token of the same row, or -1

  Chains(const EmbeddingTable& table, int64_t tokens, int64_t skipped)
      : first(table.rows), next(tokens) {
    std::memset(first, -1, table.rows * sizeof(int32_t));
    for (int64_t t = tokens; t-- > 0;) {
      const int64_t row = table.index[t];
      if (row == skipped) continue;
      next[t] = first[row];
      first[row] = static_cast<int32_t>(t);
    }
  }
};

// Columns begin..end of rows first..last of a table's gradient.
template <class S, class W>
void sum_chains(const Chains& chains, const S* dr, int64_t n, int64_t first, int64_t last,
                int64_t begin, int64_t end, W* out) {
  Scratch<float> total(end - begin);
  for (int64_t row = first; row < last; ++row) {
    W* to = out + row * n + begin;
    int32_t t = chains.first[row];
    if (t < 0) {
      std::memset(to, 0, (end - begin) * sizeof(W));
      continue;
    }
    widen_row<S>(dr + t * n + begin, end - begin, total);
    while ((t = chains.next[t]) >= 0) {
      const S* from = dr + t * n + begin;
      columns(end - begin, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
        store(total + i, load(total + i, lanes) + load(from + i, lanes), lanes);
      });
    }
    columns(end - begin, [&](int64_t i, auto lanes)
                             BIGFAST_LAMBDA { store(to + i, load(total + i, lanes), lanes); });
  }
}

template <class S>
void table_bwd(const EmbeddingTable& table, const S* dr, int64_t tokens, int64_t n, int64_t skipped,
               void* out, DType dtype) {
  const Chains chains(table, tokens, skipped);
  // A small table has long chains: its columns are split, too.
  const int64_t rows = (table.rows + 63) / 64, width = table.rows < 64 && n > 64 ? 64 : n;
  const int64_t blocks = (table.rows + rows - 1) / rows, strips = (n + width - 1) / width;
  dispatch(dtype, [&](auto w) {
    auto body = [&](int64_t task) {
      const int64_t first = task / strips * rows, begin = task % strips * width;
      sum_chains(chains, dr, n, first, first + rows < table.rows ? first + rows : table.rows, begin,
                 begin + width < n ? begin + width : n, static_cast<decltype(w)*>(out));
    };
    parallel_tasks(blocks * strips, body);
  });
}

template <class S>
void tables_bwd(const EmbeddingBackward& a, const S* dr) {
  const int64_t n = a.features;
  if (a.dword) table_bwd(a.word, dr, a.tokens, n, a.padding_idx, a.dword, a.table_dtype);
  if (a.dposition) table_bwd(a.position, dr, a.tokens, n, -1, a.dposition, a.table_dtype);
  if (a.dtoken_type) table_bwd(a.token_type, dr, a.tokens, n, -1, a.dtoken_type, a.table_dtype);
}

}  // namespace

void embedding_fwd(const EmbeddingForward& a) noexcept {
  const int64_t n = a.features, step = rows_per_task(a.tokens, n);
  Scratch<float> weight(n), bias(n);
  if (a.norm_weight) widen_row(a.norm_weight, a.norm_dtype, n, weight);
  if (a.norm_bias) widen_row(a.norm_bias, a.norm_dtype, n, bias);
  dispatch(a.table_dtype, [&](auto w) {
    dispatch(a.y_dtype, [&](auto y) {
      auto body = [&](int64_t task) {
        const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
        rows_fwd<decltype(w), decltype(y)>(a, a.norm_weight ? static_cast<float*>(weight) : nullptr,
                                           a.norm_bias ? static_cast<float*>(bias) : nullptr, begin,
                                           end);
      };
      parallel_tasks((a.tokens + step - 1) / step, body);
    });
  });
}

void embedding_bwd(const EmbeddingBackward& a) noexcept {
  const int64_t n = a.features;
  if (!a.norm_weight && !a.dropout.seed) {  // dy is dr
    return dispatch(a.y_dtype,
                    [&](auto y) { tables_bwd(a, static_cast<const decltype(y)*>(a.dy)); });
  }
  const int64_t step = rows_per_task(a.tokens, n), tasks = (a.tokens + step - 1) / step;
  Scratch<float> weight(n), dr(a.tokens * n), partial((tasks + 1) * 2 * n);
  std::memset(partial, 0, (tasks + 1) * 2 * n * sizeof(float));
  if (a.norm_weight) widen_row(a.norm_weight, a.norm_dtype, n, weight);
  dispatch(a.table_dtype, [&](auto w) {
    dispatch(a.y_dtype, [&](auto y) {
      auto body = [&](int64_t task) {
        const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
        float* dweight = partial + (task + 1) * 2 * n;
        rows_bwd<decltype(w), decltype(y)>(a, a.norm_weight ? static_cast<float*>(weight) : nullptr,
                                           begin, end, dr, dweight, dweight + n);
      };
      parallel_tasks(tasks, body);
    });
  });
  if (a.norm_weight) {
    sum_partials(partial, tasks, 2 * n);
    narrow_row(partial, n, a.dnorm_weight, a.norm_dtype);
    if (a.dnorm_bias) narrow_row(partial + n, n, a.dnorm_bias, a.norm_dtype);
  }
  tables_bwd<float>(a, dr);
}

}  // namespace bigfast::cpu::BIGFAST_ISA
