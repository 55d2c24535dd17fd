// C += A B for blocks that lie in cache: the inner loop of attention's products.
//
// A is read row by row as it lies in memory; B is packed into panels of kPanel columns, so that one
// step loads a few whole vectors. The element type E is float, or bf16 where the instruction set
// multiplies pairs of them: there a step takes two k at once, A's pairs being neighbours in its
// rows and B's being neighbours in the panel. kGroup<E> is 1 or 2; "groups" counts steps. C is
// fp32. Each element of C is the same chain of additions over k, whatever the rows around it.
#pragma once

#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

#if BIGFAST_ISA_avx512_bf16
constexpr bool kBf16Products = true;
#else
constexpr bool kBf16Products = false;
#endif
#if BIGFAST_ISA_avx512 || BIGFAST_ISA_avx512_bf16 || defined(__aarch64__)
constexpr int kTileVectors = 4;  // 6 x 4 accumulators, 4 of B and 1 of A: 29 of 32 registers
#else
constexpr int kTileVectors = 2;  // 15 of 16
#endif
constexpr int kTileRows = 6;
constexpr int kPanel = kTileVectors * F::W;

template <class E>
constexpr int kGroup = sizeof(float) / sizeof(E);

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

template <class E>
inline int64_t groups_of(int64_t k) {
  return (k + kGroup<E> - 1) / kGroup<E>;
}

// A group of A in every lane; W groups of B, or of any packed buffer, bits untouched.
BIGFAST_INLINE F broadcast_group(const float* p) { return F(*p); }
BIGFAST_INLINE F load_groups(const float* p) { return load(p); }
BIGFAST_INLINE F step(F a, F b, F c, float) { return fma(a, b, c); }
#if BIGFAST_ISA_avx512_bf16
BIGFAST_INLINE F broadcast_group(const bf16* p) {
  int pair;
  std::memcpy(&pair, p, 4);
  return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
}
BIGFAST_INLINE F load_groups(const bf16* p) { return _mm512_loadu_ps(p); }
BIGFAST_INLINE F step(F a, F b, F c, bf16) { return dot_pairs(a, b, c); }
#endif

// W groups from kGroup<E> rows of W lanes, and their way to memory. Their bits need be no floats.
BIGFAST_INLINE F make_groups(const F rows[1], float) { return rows[0]; }
BIGFAST_INLINE void store_groups(float* p, F groups) { store(p, groups); }
#if BIGFAST_ISA_avx512_bf16
BIGFAST_INLINE F make_groups(const F rows[2], bf16) { return pairs(rows[0], rows[1]); }
BIGFAST_INLINE void store_groups(bf16* p, F groups) { _mm512_storeu_ps(p, groups.v); }
#endif

// f(0), ..., f(n - 1) as constants: arrays indexed by them become registers from the start.
template <int n, class Body>
BIGFAST_INLINE void unrolled(Body&& f) {
  if constexpr (n > 0) {
    unrolled<n - 1>(f);
    f(n - 1);
  }
}

template <class E, int kRows, int kVectors>
void tile(const E* a, int64_t lda, const E* b, int64_t groups, float* c, int64_t ldc, bool add) {
  F acc[kRows][kVectors];
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kVectors>([&](int j) BIGFAST_LAMBDA { acc[i][j] = F(0.0f); });
  });
  for (int64_t g = 0; g < groups; ++g, a += kGroup<E>, b += kPanel * kGroup<E>) {
    F vector[kVectors];
    unrolled<kVectors>([&](int j)
                           BIGFAST_LAMBDA { vector[j] = load_groups(b + j * F::W * kGroup<E>); });
    unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
      const F scalar = broadcast_group(a + i * lda);
      unrolled<kVectors>(
          [&](int j) BIGFAST_LAMBDA { acc[i][j] = step(scalar, vector[j], acc[i][j], E{}); });
    });
  }
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kVectors>([&](int j) BIGFAST_LAMBDA {
      float* at = c + i * ldc + j * F::W;
      store(at, add ? acc[i][j] + load(at) : acc[i][j]);
    });
  });
}

template <class E, int kVectors>
void row_tiles(const E* a, int64_t lda, const E* b, int64_t groups, float* c, int64_t ldc, bool add,
               int64_t rows) {
  for (; rows >= 6; rows -= 6, a += 6 * lda, c += 6 * ldc)
    tile<E, 6, kVectors>(a, lda, b, groups, c, ldc, add);
  for (; rows >= 4; rows -= 4, a += 4 * lda, c += 4 * ldc)
    tile<E, 4, kVectors>(a, lda, b, groups, c, ldc, add);
  for (; rows >= 2; rows -= 2, a += 2 * lda, c += 2 * ldc)
    tile<E, 2, kVectors>(a, lda, b, groups, c, ldc, add);
  if (rows > 0) tile<E, 1, kVectors>(a, lda, b, groups, c, ldc, add);
}

// All rows of one panel, of which `vectors` (or kTileVectors, if that is less) are wanted.
template <class E>
void row_tiles(int64_t vectors, const E* a, int64_t lda, const E* b, int64_t groups, float* c,
               int64_t ldc, bool add, int64_t rows) {
  if constexpr (kTileVectors == 4) {
    if (vectors > 3) return row_tiles<E, 4>(a, lda, b, groups, c, ldc, add, rows);
    if (vectors == 3) return row_tiles<E, 3>(a, lda, b, groups, c, ldc, add, rows);
  }
  if (vectors > 1) return row_tiles<E, 2>(a, lda, b, groups, c, ldc, add, rows);
  row_tiles<E, 1>(a, lda, b, groups, c, ldc, add, rows);
}

// A B operand: panels of kPanel columns, `stride` elements apart, each (groups, kPanel, kGroup).
template <class E>
struct Panels {
  E* data;
  int64_t stride;
  BIGFAST_INLINE E* at(int64_t group, int64_t column) const {
    return data + column / kPanel * stride + (group * kPanel + column % kPanel) * kGroup<E>;
  }
  // What begins at a group, or at a column that begins a panel.
  BIGFAST_INLINE Panels from_group(int64_t group) const { return {at(group, 0), stride}; }
  BIGFAST_INLINE Panels from_column(int64_t column) const { return {at(0, column), stride}; }
};

// Elements of the panels of `columns` columns and `groups` groups, and their stride.
template <class E>
inline int64_t panel_stride(int64_t groups) {
  return groups * kPanel * kGroup<E>;
}
template <class E>
inline int64_t panels_size(int64_t groups, int64_t columns) {
  return round_up(columns, kPanel) / kPanel * panel_stride<E>(groups);
}

// C (rows, columns) = or += A (rows, groups) B (groups, columns). C is written in whole vectors:
// columns are rounded up to F::W. Long sums are made of parts of kDepth steps: the part of a panel
// stays in L1 for all rows, and shorter chains of additions round less.
constexpr int64_t kDepth = 64;

template <class E>
void product(const E* a, int64_t lda, Panels<E> b, int64_t rows, int64_t columns, int64_t groups,
             float* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < columns; j += kPanel) {
    const int64_t vectors = (columns - j + F::W - 1) / F::W;
    int64_t g = 0;
    do {
      const int64_t depth = groups - g < kDepth ? groups - g : kDepth;
      row_tiles<E>(vectors, a + g * kGroup<E>, lda, b.at(g, j), depth, c + j, ldc, add || g > 0,
                   rows);
      g += kDepth;
    } while (g < groups);
  }
}

// kGroup<E> rows, the first of which is row `first`, at column i; rows from n on are zeros.
template <class E, class T>
BIGFAST_INLINE F group_of_rows(const T* x, int64_t ld, int64_t first, int64_t n, int64_t i,
                               int lanes) {
  F rows[kGroup<E>];
  for (int u = 0; u < kGroup<E>; ++u) {
    const T* row = x + (first + u) * ld + i;
    rows[u] = first + u >= n ? F(0.0f) : lanes >= F::W ? load(row) : load(row, lanes);
  }
  return make_groups(rows, E{});
}

// B = X, for X (n, columns): k runs over X's rows.
template <class E, class T>
void pack_rows(const T* x, int64_t ld, int64_t n, int64_t columns, Panels<E> to) {
  for (int64_t j = 0; j < columns; j += F::W) {
    const int lanes = static_cast<int>(columns - j < F::W ? columns - j : F::W);
    for (int64_t g = 0; g * kGroup<E> < n; ++g)
      store(reinterpret_cast<float*>(to.at(g, j)),
            group_of_rows<E>(x, ld, g * kGroup<E>, n, j, lanes));
  }
}

// A = X^T, for X (n, columns): `to` (columns, ld_to) has kGroup<E> W-fold ld_to >= n; beyond n: 0.
template <class E, class T>
void pack_transposed_rows(const T* x, int64_t ld, int64_t n, int64_t columns, E* to,
                          int64_t ld_to) {
  for (int64_t j = 0; j < columns; j += F::W) {
    const int lanes = static_cast<int>(columns - j < F::W ? columns - j : F::W);
    for (int64_t i = 0; i < n; i += F::W * kGroup<E>) {
      F block[F::W];
      for (int u = 0; u < F::W; ++u)
        block[u] = group_of_rows<E>(x, ld, i + u * kGroup<E>, n, j, lanes);
      transpose(block);
      for (int u = 0; u < lanes; ++u) store_groups(to + (j + u) * ld_to + i, block[u]);
    }
  }
}

// W groups of one row, from column i on. For E = bf16 these are the row's own pairs.
BIGFAST_INLINE F groups_of_row(const float* row, int64_t group, int lanes, float) {
  return load(row + group, lanes);
}
BIGFAST_INLINE F groups_of_row(const bf16* row, int64_t group, int lanes, float) {
  return load(row + group, lanes);
}
#if BIGFAST_ISA_avx512_bf16
BIGFAST_INLINE F groups_of_row(const bf16* row, int64_t group, int lanes, bf16) {
  return _mm512_maskz_loadu_ps(first(lanes), row + 2 * group);
}
#endif

// B = X^T, for X (n, k), k a multiple of kGroup<E>: B's columns are X's rows; beyond n: 0.
template <class E, class T>
void pack_columns(const T* x, int64_t ld, int64_t n, int64_t k, Panels<E> to) {
  const int64_t groups = k / kGroup<E>;
  for (int64_t i = 0; i < n; i += F::W) {
    for (int64_t g = 0; g < groups; g += F::W) {
      const int lanes = static_cast<int>(groups - g < F::W ? groups - g : F::W);
      F block[F::W];
      for (int u = 0; u < F::W; ++u)
        block[u] = i + u < n ? groups_of_row(x + (i + u) * ld, g, lanes, E{}) : F(0.0f);
      transpose(block);
      for (int u = 0; u < lanes; ++u) store_groups(to.at(g + u, i), block[u]);
    }
  }
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
