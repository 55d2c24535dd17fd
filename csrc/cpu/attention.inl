// What attention's two directions share: sequences, element types, the exponential.
#pragma once

#include "cpu/attention.h"
#include "cpu/microkernel.inl"
#include "cpu/parallel.h"
#include "cpu/philox.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr double kLog2E = 1.44269504088896341, kLn2 = 0.693147180559945309;
constexpr float kInfinity = __builtin_inff(), kLowest = -3.402823466e38f;

inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

struct Sequence {
  int64_t index;
  int64_t q_begin, q_len;  // in tokens of AttentionRows
  int64_t k_begin, k_len;  // keys that count
  int64_t k_all;           // and those beyond, which seqused_k leaves out
  int64_t first_token;     // of the queries, over all sequences
  int64_t left, right;     // of AttentionShape

  // The key that stands where query i does: the last query and the last key stand together.
  BIGFAST_INLINE int64_t own(int64_t i) const { return i + k_len - q_len; }
  // Query i sees the keys [from(i), to(i)). Neither falls with i.
  BIGFAST_INLINE int64_t from(int64_t i) const { return max(0, own(i) - left); }
  BIGFAST_INLINE int64_t to(int64_t i) const { return min(k_len, max(0, own(i) + 1 + right)); }
};

// Where products over a block of keys may begin: whole panels, whole runs of dropout.
constexpr int64_t kRun = 64;
static_assert(kRun % kPanel == 0);

// The columns of a block of n keys, from key `first` on, that queries [begin, begin + rows) see,
// the lower end rounded down to a run.
struct Columns {
  int64_t from, to;
};
inline Columns columns_of(const Sequence& s, int64_t begin, int64_t rows, int64_t first,
                          int64_t n) {
  const int64_t to = min(n, max(0, s.to(begin + rows - 1) - first));
  const int64_t from = max(0, s.from(begin) - first);
  return {from < to ? from / kRun * kRun : to, to};
}

inline Sequence sequence(const AttentionShape& a, int64_t b) {
  Sequence s{b, 0, a.queries, 0, a.keys, a.keys, b * a.queries, a.left, a.right};
  if (a.cu_seqlens) {
    const int32_t* cu_k = a.cu_seqlens_k ? a.cu_seqlens_k : a.cu_seqlens;
    s.q_begin = s.first_token = a.cu_seqlens[b];
    s.q_len = a.cu_seqlens[b + 1] - s.q_begin;
    s.k_begin = cu_k[b];
    s.k_all = cu_k[b + 1] - s.k_begin;
  }
  s.k_len = a.seqused_k ? a.seqused_k[b] : s.k_all;
  return s;
}

template <class T>
BIGFAST_INLINE const T* row_of(const AttentionRows<const void>& x, int64_t b, int64_t token,
                               int64_t head) {
  return static_cast<const T*>(x.data) + b * x.batch + token * x.token + head * x.head;
}
template <class T>
BIGFAST_INLINE T* row_of(const AttentionRows<void>& x, int64_t b, int64_t token, int64_t head) {
  return static_cast<T*>(x.data) + b * x.batch + token * x.token + head * x.head;
}

// Packed: nobody's rows, from `begin` on, of a result, which is contiguous.
inline void zero_tail(const AttentionRows<void>& x, int64_t begin, int64_t tokens, DType dtype) {
  const int64_t size = dtype == DType::f32 ? 4 : 2;
  std::memset(static_cast<char*>(x.data) + begin * x.token * size, 0,
              (tokens - begin) * x.token * size);
}

// Asks for rows that will be read (kWrite: written) soon. A head's rows lie whole tokens apart,
// where no hardware foresees the next one.
template <bool kWrite = false, class T>
inline void prefetch_rows(const T* x, int64_t ld, int64_t rows, int64_t dim) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < dim; j += 64 / int64_t(sizeof(T)))
      __builtin_prefetch(x + i * ld + j, kWrite);
}

// ALiBi: the bias - slope |distance| of a head, in units of the scores before `scale`.
class Alibi {
 public:
  Alibi(const AttentionShape& a, int64_t b, int64_t head)
      : slope_(a.alibi_slopes ? a.alibi_slopes[b * a.alibi_batch + head] / a.scale : 0.0f) {}

  // Adds it to scores [from, to) of a row; column 0 is `distance` keys behind the query's own.
  void add(float* s, int64_t from, int64_t to, int64_t distance) const {
    static constexpr float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    if (slope_ == 0.0f) return;
    for (int64_t i = from / F::W * F::W; i < to; i += F::W) {
      const F steps = load(lanes) + F(static_cast<float>(i + distance));
      store(s + i, load(s + i) - F(slope_) * abs(steps));
    }
  }

 private:
  float slope_;
};

// e^(scale s - top), as a power of 2. Constants in fp32 would cost more than all the rest where
// products are exact enough to show it: there both have a second part.
template <class E>
class Weight {
 public:
  Weight(float scale, double top)  // top: times log2 e
      : factor_(static_cast<float>(scale * kLog2E)),
        factor_rest_(static_cast<float>(scale * kLog2E - static_cast<float>(scale * kLog2E))),
        offset_(static_cast<float>(-top)),
        offset_rest_(static_cast<float>(static_cast<float>(top) - top)) {}

  BIGFAST_INLINE F operator()(F s) const {
    if constexpr (kGroup<E> == 2) return exp2(fma(s, factor_, offset_), E{});
    s = max(F(kLowest), s);  // -inf times a negative rest would be inf
    return exp2(fma(s, factor_, offset_) + fma(s, factor_rest_, offset_rest_), E{});
  }

 private:
  F factor_, factor_rest_, offset_, offset_rest_;
};

// f(e, t) with values of the type that products run in and of the stored type. bf16 products take
// pairs from rows as they lie, hence an even dim.
template <class Body>
void dispatch_types(const AttentionShape& a, Body&& f) {
  if (a.dtype == DType::f32) return f(float{}, float{});
  if constexpr (kBf16Products) {
    if (a.dim % 2 == 0) return f(bf16{}, bf16{});
  }
  f(float{}, bf16{});
}

// Rows of an A operand: in place where T is what products run in, else widened into `scratch`.
template <class E, class T>
struct Rows {
  const E* data;
  int64_t ld;
};
template <class E, class T>
Rows<E, T> a_rows(const T* x, int64_t ld, int64_t rows, int64_t columns_, E* scratch) {
  if constexpr (sizeof(E) == sizeof(T)) {
    return {x, ld};
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      columns(columns_, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
        store(scratch + i * columns_ + j, load(x + i * ld + j, lanes), lanes);
      });
    }
    return {scratch, columns_};
  }
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
