// y = x W^T + b for few rows of x, up to some hundreds.
//
// Such products are bound by memory, or not far from it: what products of many rows do first,
// arrange W in a copy, takes longer than to use it. So W is read once, as it lies, and x is
// arranged: y^T = W x^T, where rows of W are what a tile reads row by row and x^T is its panel. For
// one row of x that panel would be empty but for a lane: there each element of y is a dot product,
// and W goes by as one stream, which the prefetcher follows best.
#include "cpu/linear_few.h"

#include <type_traits>

#include "cpu/microkernel.inl"
#include "cpu/parallel.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int64_t kOutputs = 48;  // of a task: a multiple of every tile's rows
constexpr int64_t kAhead = 8192;  // bytes: what memory delivers to a core while it looks for more
constexpr int64_t kChain = 256;   // groups that are added up before they are added to others
constexpr int64_t kLine = 16;     // groups of a cache line

template <class T>
constexpr bool kPairs = kBf16Products && sizeof(T) == 2;

// Rows of W in a tile with so many vectors of x^T; 24 with one would have more pointers than there
// are registers.
template <int kVectors>
constexpr int kTileOfW = kVectors == 1 ? 12 : 6 * kTileVectors / kVectors;

BIGFAST_INLINE void prefetch(const void* p, int64_t bytes) {
  __builtin_prefetch(static_cast<const char*>(p) + bytes);  // it never faults
}

// Tasks of kOutputs outputs: body(the first, how many).
template <class Body>
void by_outputs(int64_t out, Body&& body) {
  auto task = [&](int64_t i) {
    const int64_t first = i * kOutputs;
    body(first, out - first < kOutputs ? out - first : kOutputs);
  };
  parallel_tasks((out + kOutputs - 1) / kOutputs, task);
}

// One row of x -------------------------------------------------------------------------------

template <class T>
float dot(const T* x, const T* w, int64_t in) {
  using E = std::conditional_t<kPairs<T>, bf16, float>;
  const auto operand = [](const T* p) BIGFAST_LAMBDA {
    if constexpr (kPairs<T>)
      return load_groups(p);
    else
      return load(p);
  };
  F acc(0.0f);
  int64_t k = 0;
  for (; k + F::W * kGroup<E> <= in; k += F::W * kGroup<E>) {
    prefetch(w + k, kAhead);
    acc = step(operand(x + k), operand(w + k), acc, E{});
  }
  for (; k < in; k += F::W) {
    const int lanes = static_cast<int>(in - k < F::W ? in - k : F::W);
    acc = fma(load(x + k, lanes), load(w + k, lanes), acc);
  }
  return sum(acc);
}

template <class T>
void one_row(const LinearFew& a, int64_t first, int64_t n) {
  const T *x = static_cast<const T*>(a.x), *bias = static_cast<const T*>(a.bias);
  const T* w = static_cast<const T*>(a.weight) + first * a.weight_stride;
  float sums[kOutputs];
  for (int64_t j = 0; j < n; ++j) sums[j] = dot(x, w + j * a.weight_stride, a.in);
  columns(n, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
    F y = load(sums + j, lanes);
    if (bias) y = y + load(bias + first + j, lanes);
    store(static_cast<T*>(a.y) + first + j, y, lanes);
  });
}

// More rows ----------------------------------------------------------------------------------

// Rows of x, W at most, as one vector of x^T: (groups, W, kGroup), groups `stride` apart.
template <class E, class T>
void pack_vector(const T* x, int64_t in, int64_t rows, E* to, int64_t stride) {
  const int64_t groups = in / kGroup<E>;
  for (int64_t g = 0; g < groups; g += F::W) {
    const int lanes = static_cast<int>(groups - g < F::W ? groups - g : F::W);
    F block[F::W];
    for (int u = 0; u < F::W; ++u)
      block[u] = u < rows ? groups_of_row(x + u * in, g, lanes, E{}) : F(0.0f);
    transpose(block);
    for (int u = 0; u < lanes; ++u) store_groups(to + (g + u) * stride, block[u]);
  }
}

// x^T in panels of kTileVectors vectors, the last of as many as are left: (groups, vectors, W,
// kGroup) each.
template <class E, class T>
void pack_x(const LinearFew& a, E* to) {
  auto task = [&](int64_t vector) {
    const int64_t first = vector / kTileVectors * kTileVectors, all = (a.rows + F::W - 1) / F::W;
    const int64_t vectors = all - first < kTileVectors ? all - first : kTileVectors;
    E* panel = to + first * F::W * a.in;
    pack_vector<E>(static_cast<const T*>(a.x) + vector * F::W * a.in, a.in, a.rows - vector * F::W,
                   panel + (vector - first) * F::W * kGroup<E>, vectors * F::W * kGroup<E>);
  };
  parallel_tasks((a.rows + F::W - 1) / F::W, task);
}

// y (kRows, kVectors W), rows kPanel apart, = or += W x^T over some groups. `ahead`: bytes to the
// rows of W that come next, or 0 where they are in cache.
template <class E, int kRows, int kVectors>
void tile(const E* w, int64_t stride, const E* x, int64_t groups, int64_t ahead, float* y,
          bool add) {
  F acc[kRows][kVectors];
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kVectors>([&](int j) BIGFAST_LAMBDA { acc[i][j] = F(0.0f); });
  });
  for (int64_t g = 0; g < groups; g += kLine) {
    if (ahead) unrolled<kRows>([&](int i) BIGFAST_LAMBDA { prefetch(w + i * stride, ahead); });
    const int64_t n = groups - g < kLine ? groups - g : kLine;
    for (int64_t u = 0; u < n; ++u, w += kGroup<E>, x += kVectors * F::W * kGroup<E>) {
      F vector[kVectors];
      unrolled<kVectors>([&](int j)
                             BIGFAST_LAMBDA { vector[j] = load_groups(x + j * F::W * kGroup<E>); });
      unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
        const F scalar = broadcast_group(w + i * stride);
        unrolled<kVectors>(
            [&](int j) BIGFAST_LAMBDA { acc[i][j] = step(scalar, vector[j], acc[i][j], E{}); });
      });
    }
  }
  unrolled<kRows>([&](int i) BIGFAST_LAMBDA {
    unrolled<kVectors>([&](int j) BIGFAST_LAMBDA {
      float* at = y + i * kPanel + j * F::W;
      store(at, add ? acc[i][j] + load(at) : acc[i][j]);
    });
  });
}

// Rows of W times a panel of x^T. What is no E becomes it first, a chain of groups at a time.
template <class E, int kRows, int kVectors, class T>
void rows_of_w(const T* w, int64_t stride, const E* x, int64_t groups, bool in_cache, float* y) {
  int64_t g = 0;
  do {
    const int64_t depth = groups - g < kChain ? groups - g : kChain;
    if constexpr (sizeof(T) == sizeof(E)) {
      const int64_t ahead = in_cache ? 0 : kRows * stride * static_cast<int64_t>(sizeof(E));
      tile<E, kRows, kVectors>(w + g * kGroup<E>, stride, x, depth, ahead, y, g > 0);
    } else {
      E wide[kRows * kChain];
      for (int i = 0; i < kRows; ++i)
        columns(depth, [&](int64_t k, auto lanes) BIGFAST_LAMBDA {
          store(wide + i * kChain + k, load(w + i * stride + g + k, lanes), lanes);
        });
      tile<E, kRows, kVectors>(wide, kChain, x, depth, 0, y, g > 0);
    }
    g += kChain;
    x += kChain * kVectors * F::W * kGroup<E>;
  } while (g < groups);
}

// y^T (n, vectors W) of a task and a panel of x^T.
template <class E, int kVectors = kTileVectors, class T>
void panel(int64_t vectors, const T* w, int64_t stride, int64_t n, const E* x, int64_t groups,
           bool in_cache, float* y) {
  if constexpr (kVectors > 1)
    if (vectors < kVectors)
      return panel<E, kVectors - 1>(vectors, w, stride, n, x, groups, in_cache, y);
  constexpr int kRows = kTileOfW<kVectors>;
  int64_t j = 0;
  for (; j + kRows <= n; j += kRows)
    rows_of_w<E, kRows, kVectors>(w + j * stride, stride, x, groups, in_cache, y + j * kPanel);
  for (; j < n; ++j)
    rows_of_w<E, 1, kVectors>(w + j * stride, stride, x, groups, in_cache, y + j * kPanel);
}

// y (rows, n) of a panel, from y^T, and the bias.
template <class T>
void store_outputs(const float* sums, int64_t rows, int64_t n, const T* bias, T* y, int64_t out) {
  for (int64_t i = 0; i < rows; i += F::W)
    columns(n, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      F block[F::W];
      for (int u = 0; u < F::W; ++u)
        block[u] = j + u < n ? load(sums + (j + u) * kPanel + i) : F(0.0f);
      transpose(block);
      for (int u = 0; u < F::W && i + u < rows; ++u) {
        const F more = bias ? load(bias + j, lanes) : F(0.0f);
        store(y + (i + u) * out + j, block[u] + more, lanes);
      }
    });
}

template <class E, class T>
void more_rows(const LinearFew& a) {
  const T *w = static_cast<const T*>(a.weight), *bias = static_cast<const T*>(a.bias);
  Scratch<E> x(round_up(a.rows, F::W) * a.in);
  pack_x<E, T>(a, x);
  by_outputs(a.out, [&](int64_t first, int64_t n) {
    Scratch<float> sums(kOutputs * kPanel);
    for (int64_t row = 0; row < a.rows; row += kPanel) {
      const int64_t rows = a.rows - row < kPanel ? a.rows - row : kPanel;
      panel<E>((rows + F::W - 1) / F::W, w + first * a.weight_stride, a.weight_stride, n,
               x + row * a.in, a.in / kGroup<E>, row > 0, sums);
      store_outputs(sums, rows, n, bias ? bias + first : nullptr,
                    static_cast<T*>(a.y) + row * a.out + first, a.out);
    }
  });
}

}  // namespace

void linear_few(const LinearFew& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (a.rows == 1)
      return by_outputs(a.out, [&](int64_t first, int64_t n) { one_row<T>(a, first, n); });
    // Pairs are multiplied where the instruction set can and there are whole ones; else numbers
    // become fp32 first.
    if constexpr (kPairs<T>)
      if (a.in % kGroup<bf16> == 0) return more_rows<bf16, T>(a);
    more_rows<float, T>(a);
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
