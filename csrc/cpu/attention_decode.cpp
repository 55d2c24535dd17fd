// o = softmax(scale q k^T + bias) v for one query or a few against a long cache.
//
// Bound by memory: K and V are read once, as they lie; to pack them would cost more than to use
// them. A task is a run of keys of one key head of one sequence, with all query rows that read it;
// what the runs of a head leave, the largest score, the sum of exponentials below it and o without
// its divisor, is put together afterwards, in order. Runs depend on shapes alone.
#include "cpu/attention.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int64_t kKeys = 256;  // of a run: 32 KB of K at 64 dims in bf16

// Scores of one row against F::W keys, of which n are there.
template <class T>
BIGFAST_INLINE F dot_keys(const float* q, const T* k, int64_t ld, int64_t n, int64_t dim) {
  F block[F::W];
  for (int64_t u = 0; u < F::W; ++u) {
    F total(0.0f);
    if (u < n)
      columns(dim, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
        total = fma(load(q + j), load(k + u * ld + j, lanes), total);
      });
    block[u] = total;
  }
  transpose(block);
  for (int64_t half = F::W / 2; half > 0; half /= 2)
    for (int64_t u = 0; u < half; ++u) block[u] = block[u] + block[u + half];
  return block[0];
}

// o += p v for one row and n <= F::W keys.
template <class T>
BIGFAST_INLINE void add_values(const float* p, const T* v, int64_t ld, int64_t n, int64_t dim,
                               float* o) {
  columns(dim, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
    F total = load(o + j);
    for (int64_t u = 0; u < n; ++u) total = fma(F(p[u]), load(v + u * ld + j, lanes), total);
    store(o + j, total);
  });
}

// What a run leaves of its rows.
struct Left {
  float *top, *sum;  // (rows)
  float* o;          // (rows, width)
};

// Row r is query r / group of the r % group-th head that reads kv_head.
template <class T>
void decode_task(const AttentionForward& a, const Sequence& s, int64_t kv_head, int64_t first,
                 int64_t width, const Left& left) {
  const int64_t dim = a.shape.dim, group = a.shape.heads / a.shape.kv_heads;
  const int64_t rows = s.q_len * group, n = min(kKeys, s.to(s.q_len - 1) - first);
  std::memset(left.o, 0, rows * width * sizeof(float));
  Scratch<float> q(rows * width), scores(rows * kKeys);
  std::memset(q, 0, rows * width * sizeof(float));
  for (int64_t r = 0; r < rows; ++r)
    columns(dim, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      const T* from = row_of<T>(a.q, s.index, r / group, kv_head * group + r % group);
      store(q + r * width + j, load(from + j, lanes));
    });
  const T* k = row_of<T>(a.k, s.index, first, kv_head);
  const T* v = row_of<T>(a.v, s.index, first, kv_head);
  for (int64_t i = 0; i < n; i += F::W) {
    if (i + F::W < n) prefetch_rows(k + (i + F::W) * a.k.token, a.k.token, F::W, dim);
    for (int64_t r = 0; r < rows; ++r)
      store(scores + r * kKeys + i,
            dot_keys(q + r * width, k + i * a.k.token, a.k.token, min(F::W, n - i), dim));
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* row = scores + r * kKeys;
    const int64_t query = r / group, to = min(n, max(0, s.to(query) - first));
    const int64_t from = min(to, max(0, s.from(query) - first));
    Alibi(a.shape, s.index, kv_head * group + r % group).add(row, from, to, first - s.own(query));
    for (int64_t i = 0; i < from; ++i) row[i] = kLowest;
    for (int64_t i = to; i < round_up(n, F::W); ++i) row[i] = kLowest;
    left.top[r] = -kInfinity;
    left.sum[r] = 0.0f;
    if (from == to) continue;
    F top(kLowest);
    for (int64_t i = 0; i < n; i += F::W) top = max(top, load(row + i));
    left.top[r] = static_cast<float>(a.shape.scale * kLog2E) * max_lane(top);
    const Weight<T> weight(a.shape.scale, left.top[r]);
    F sums(0.0f);
    for (int64_t i = 0; i < n; i += F::W) {
      const F p = weight(load(row + i));
      sums = sums + p;
      store(row + i, p);
    }
    left.sum[r] = sum(sums);
  }
  for (int64_t i = 0; i < n; i += F::W) {
    if (i + F::W < n) prefetch_rows(v + (i + F::W) * a.v.token, a.v.token, F::W, dim);
    for (int64_t r = 0; r < rows; ++r)
      if (left.sum[r] > 0.0f)
        add_values(scores + r * kKeys + i, v + i * a.v.token, a.v.token, min(F::W, n - i), dim,
                   left.o + r * width);
  }
}

// o of one row from what its runs have left; left: by the first run, `stride` floats apart.
template <class T>
void join(const Left& left, int64_t runs, int64_t stride, int64_t r, int64_t dim, int64_t width,
          T* o) {
  float top = -kInfinity, total = 0.0f;
  for (int64_t i = 0; i < runs; ++i) top = __builtin_fmaxf(top, left.top[r + i * stride]);
  Scratch<float> sum(width);
  std::memset(sum, 0, width * sizeof(float));
  for (int64_t i = 0; i < runs; ++i) {
    const float below = left.top[r + i * stride];
    if (below == -kInfinity) continue;
    const float share = __builtin_exp2f(below - top);
    total += share * left.sum[r + i * stride];
    const float* from = left.o + r * width + i * stride;
    for (int64_t j = 0; j < width; j += F::W)
      store(sum + j, fma(F(share), load(from + j), load(sum + j)));
  }
  const F factor(total == 0.0f ? 0.0f : 1.0f / total);
  columns(dim, [&](int64_t j, auto lanes)
                   BIGFAST_LAMBDA { store(o + j, factor * load(sum + j), lanes); });
}

}  // namespace

void attention_decode(const AttentionForward& a) noexcept {
  const AttentionShape& shape = a.shape;
  const int64_t group = shape.heads / shape.kv_heads, rows = shape.queries * group;
  const int64_t width = round_up(shape.dim, F::W), runs = max(1, (shape.keys + kKeys - 1) / kKeys);
  const int64_t pairs = shape.batch * shape.kv_heads, stride = rows * (width + 2);
  Scratch<float> memory(pairs * runs * stride);
  const auto left = [&](int64_t pair, int64_t run) {
    float* at = memory + (pair * runs + run) * stride;
    return Left{at, at + rows, at + 2 * rows};
  };
  dispatch(shape.dtype, [&](auto tag) {
    using T = decltype(tag);
    auto scores = [&](int64_t task) {
      const int64_t pair = task / runs, run = task % runs;
      const Sequence s = sequence(shape, pair / shape.kv_heads);
      const Left mine = left(pair, run);
      if (run * kKeys < s.to(s.q_len - 1) && (run + 1) * kKeys > s.from(0))
        return decode_task<T>(a, s, pair % shape.kv_heads, run * kKeys, width, mine);
      for (int64_t r = 0; r < rows; ++r) mine.top[r] = -kInfinity;
    };
    parallel_tasks(rows ? pairs * runs : 0, scores);
    // A second round of threads only where it is worth their meeting.
    const int64_t step = 1 + 65536 / (runs * width), all = pairs * rows;
    auto rest = [&](int64_t task) {
      for (int64_t i = task * step; i < min(all, (task + 1) * step); ++i) {
        const int64_t pair = i / rows, r = i % rows;
        const int64_t head = pair % shape.kv_heads * group + r % group;
        join(left(pair, 0), runs, stride, r, shape.dim, width,
             row_of<T>(a.o, pair / shape.kv_heads, r / group, head));
      }
    };
    parallel_tasks((all + step - 1) / step, rest);
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
