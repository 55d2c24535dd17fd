// C = A B for whole matrices: A is read row by row as it lies in memory, B is packed. E is the type
// that is multiplied; A's may be another, which becomes E first.
//
// A task has some rows of A, which stay in cache, and some panels of B, which go by.
#pragma once

#include "cpu/microkernel.inl"
#include "cpu/parallel.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int64_t kBlockRows = 48;   // of a task: a multiple of every tile's rows
constexpr int64_t kBlockPanels = 8;  // of a task
constexpr int64_t kChain = 256;      // groups that are added up before they are added to others
constexpr int64_t kLine = 16;        // groups of a cache line
constexpr int64_t kPanelBytes = 1 << 18;  // of a panel that stays in cache beside a task's rows

template <class T>
constexpr bool kPairs = kBf16Products && sizeof(T) == 2;

inline int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }
inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

BIGFAST_INLINE void prefetch(const void* p, int64_t bytes) {
  __builtin_prefetch(static_cast<const char*>(p) + bytes);  // it never faults
}

// f(E{}): pairs are multiplied where the instruction set can and sums over k have whole ones; else
// numbers become fp32 first.
template <class T, class Body>
void with_operand(int64_t k, Body&& f) {
  if constexpr (kPairs<T>)
    if (k % kGroup<bf16> == 0) return f(bf16{});
  f(float{});
}

// B (k, columns) in panels of kTileVectors vectors, the last of as many as are left: (groups,
// vectors, W, kGroup) each.
template <class E>
class PackedB {
 public:
  // B = X^T, X (columns, k).
  template <class T>
  static PackedB of_transposed(const T* x, int64_t ld, int64_t columns, int64_t k) {
    PackedB b(k, columns);
    auto task = [&](int64_t vector) {
      const int64_t column = vector * F::W;
      for (int64_t g = 0; g < b.groups; g += F::W) {
        const int lanes = static_cast<int>(least(F::W, b.groups - g));
        F block[F::W];
        for (int u = 0; u < F::W; ++u)
          block[u] =
              column + u < columns ? groups_of_row(x + (column + u) * ld, g, lanes, E{}) : F(0.0f);
        transpose(block);
        for (int u = 0; u < lanes; ++u) store_groups(b.at(g + u, column), block[u]);
      }
    };
    parallel_tasks(parts(columns, F::W), task);
    return b;
  }

  // B = X, X (k, columns).
  template <class T>
  static PackedB of(const T* x, int64_t ld, int64_t columns, int64_t k) {
    PackedB b(k, columns);
    auto task = [&](int64_t panel) {
      for (int64_t g = 0; g < b.groups; ++g)
        for (int64_t j = panel * kPanel; j < least(columns, (panel + 1) * kPanel); j += F::W) {
          const int lanes = static_cast<int>(least(F::W, columns - j));
          store_groups(b.at(g, j), group_of_rows<E>(x, ld, g * kGroup<E>, k, j, lanes));
        }
    };
    parallel_tasks(parts(columns, kPanel), task);
    return b;
  }

  int64_t vectors(int64_t panel) const {
    return least(kTileVectors, parts(columns - panel * kPanel, F::W));
  }
  E* at(int64_t group, int64_t column) const {
    const int64_t panel = column / kPanel;
    return data_ +
           (panel * kPanel * groups + (group * vectors(panel) + column % kPanel / F::W) * F::W) *
               kGroup<E>;
  }

  const int64_t groups, columns;

 private:
  PackedB(int64_t k, int64_t columns)
      : groups(groups_of<E>(k)),
        columns(columns),
        data_(round_up(columns, F::W) * groups_of<E>(k) * kGroup<E>) {}
  Scratch<E> data_;
};

// Rows of A in a tile with so many vectors of B; 24 with one would have more pointers than there
// are registers.
template <int kVectors>
constexpr int kTileOfA = kVectors == 1 ? 12 : 6 * kTileVectors / kVectors;

// C (kRows, kVectors W), rows kPanel apart, = or += A B over some groups. `ahead`: bytes to the
// rows of A that come next, or 0 where they are in cache.
template <class E, int kRows, int kVectors>
void block_tile(const E* a, int64_t lda, const E* b, int64_t groups, int64_t ahead, float* c,
                bool add) {
  F acc[kRows][kVectors];
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kVectors>([&](int j) BIGFAST_LAMBDA { acc[i][j] = F(0.0f); });
  });
  for (int64_t g = 0; g < groups; g += kLine) {
    if (ahead) unrolled<kRows>([&](int i) BIGFAST_LAMBDA { prefetch(a + i * lda, ahead); });
    const int64_t n = least(kLine, groups - g);
    for (int64_t u = 0; u < n; ++u, a += kGroup<E>, b += kVectors * F::W * kGroup<E>) {
      F vector[kVectors];
      unrolled<kVectors>([&](int j)
                             BIGFAST_LAMBDA { vector[j] = load_groups(b + j * F::W * kGroup<E>); });
      unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
        const F scalar = broadcast_group(a + i * lda);
        unrolled<kVectors>(
            [&](int j) BIGFAST_LAMBDA { acc[i][j] = step(scalar, vector[j], acc[i][j], E{}); });
      });
    }
  }
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kVectors>([&](int j) BIGFAST_LAMBDA {
      float* at = c + i * kPanel + j * F::W;
      store(at, add ? acc[i][j] + load(at) : acc[i][j]);
    });
  });
}

// The same over any number of groups, in chains, of rows that may have to become E.
template <class E, int kRows, int kVectors, class T>
void rows_tile(const T* a, int64_t lda, const E* b, int64_t groups, bool in_cache, float* c,
               bool add) {
  int64_t g = 0;
  do {
    const int64_t n = least(kChain, groups - g);
    if constexpr (sizeof(T) == sizeof(E)) {
      const int64_t ahead = in_cache ? 0 : kRows * lda * static_cast<int64_t>(sizeof(E));
      block_tile<E, kRows, kVectors>(a, lda, b, n, ahead, c, add || g > 0);
    } else {
      E wide[kRows * kChain];
      for (int i = 0; i < kRows; ++i)
        columns(n, [&](int64_t k, auto lanes) BIGFAST_LAMBDA {
          store(wide + i * kChain + k, load(a + i * lda + k, lanes), lanes);
        });
      block_tile<E, kRows, kVectors>(wide, kChain, b, n, 0, c, add || g > 0);
    }
    g += kChain;
    a += kChain * kGroup<E>;
    b += kChain * kVectors * F::W * kGroup<E>;
  } while (g < groups);
}

// C (rows, a panel's columns), rows kPanel apart. A panel that does not fit beside the rows goes by
// in parts, for all rows each.
template <class E, int kVectors = kTileVectors, class T>
void block(const T* a, int64_t lda, int64_t rows, const PackedB<E>& b, int64_t panel, bool in_cache,
           float* c) {
  if constexpr (kVectors > 1)
    if (b.vectors(panel) < kVectors)
      return block<E, kVectors - 1>(a, lda, rows, b, panel, in_cache, c);
  constexpr int kRows = kTileOfA<kVectors>;
  constexpr int64_t kFits = kPanelBytes / (kVectors * F::W * kGroup<E> * sizeof(E));
  const int64_t depth = b.groups <= kFits ? kFits : kChain;
  int64_t g = 0;
  do {
    const E* part = b.at(g, panel * kPanel);
    const int64_t n = least(depth, b.groups - g);
    const T* at = a + g * kGroup<E>;
    int64_t i = 0;
    for (; i + kRows <= rows; i += kRows)
      rows_tile<E, kRows, kVectors>(at + i * lda, lda, part, n, in_cache, c + i * kPanel, g > 0);
    for (; i < rows; ++i)
      rows_tile<E, 1, kVectors>(at + i * lda, lda, part, n, in_cache, c + i * kPanel, g > 0);
    g += depth;
  } while (g < b.groups);
}

// put(row, rows, column, columns, C's block of these, rows kPanel apart), for all of C = A B.
template <class E, class T, class Put>
void multiply(const T* a, int64_t lda, int64_t rows, const PackedB<E>& b, Put&& put) {
  const int64_t panels = parts(b.columns, kPanel), strips = parts(panels, kBlockPanels);
  auto task = [&](int64_t i) {
    const int64_t row = i / strips * kBlockRows, first = i % strips * kBlockPanels;
    const int64_t n = least(kBlockRows, rows - row);
    Scratch<float> c(kBlockRows * kPanel);
    for (int64_t panel = first; panel < least(panels, first + kBlockPanels); ++panel) {
      block<E>(a + row * lda, lda, n, b, panel, panel > first, c);
      put(row, n, panel * kPanel, least(kPanel, b.columns - panel * kPanel),
          static_cast<const float*>(c));
    }
  };
  parallel_tasks(parts(rows, kBlockRows) * strips, task);
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
