// The functions of csrc/cuda/device.cuh as a C++ compiler gets them; that file says what they do.
// Default arguments name the line of the kernel that calls.
#pragma once

#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "simt/numbers.h"
#include "simt/simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define BIGFAST_SHARED(type, name, ...) auto& name = simt::shared_array<type __VA_ARGS__>([] {})
#define BIGFAST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace simt {

template <class Array, class Declaration>  // a lambda, of another type in each declaration
Array& shared_array(Declaration) {
  static char tag;
  return *static_cast<Array*>(static_shared(&tag, sizeof(Array)));
}

}  // namespace simt

namespace bigfast::cuda {

using Stream = void*;
struct float2 {
  float x, y;
};

// --- numbers
template <class T>
uint32_t pack(float low, float high) {
  return from_float<T>(low).bits | uint32_t{from_float<T>(high).bits} << 16;
}
template <class T>
float2 unpack(uint32_t word) {
  return {to_float(T{static_cast<uint16_t>(word)}), to_float(T{static_cast<uint16_t>(word >> 16)})};
}
inline float fast_exp2(float v) { return std::exp2(v); }
inline float fast_log2(float v) { return std::log2(v); }
inline float fast_rsqrt(float v) { return 1.0f / std::sqrt(v); }
inline uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
}

inline int opaque(int v) { return v; }

// --- memory
template <class T>
T* dynamic_shared() {
  return static_cast<T*>(simt::dynamic_shared());
}

template <class T, int N>
struct Vec {
  T v[N];
  T& operator[](int i) { return v[i]; }
  const T& operator[](int i) const { return v[i]; }
};

template <class T>
T* in_global(T* pointer) {
  return pointer;
}

template <int N, class T>
Vec<T, N> load_vec(const T* from, BIGFAST_SITE) {
  static_assert(sizeof(T) * N <= 16 && (sizeof(T) * N & (sizeof(T) * N - 1)) == 0);
  simt::check_aligned(from, sizeof(T) * N, "load_vec", {file, line});
  Vec<T, N> out;
  for (int i = 0; i < N; ++i) out[i] = from[i];
  return out;
}
template <class T, int N>
void store_vec(T* to, const Vec<T, N>& from, BIGFAST_SITE) {
  static_assert(sizeof(T) * N <= 16 && (sizeof(T) * N & (sizeof(T) * N - 1)) == 0);
  simt::check_aligned(to, sizeof(T) * N, "store_vec", {file, line});
  for (int i = 0; i < N; ++i) to[i] = from[i];
}

inline void copy_async(void* shared, const void* global, bool valid = true, BIGFAST_SITE) {
  simt::copy_async(shared, valid ? global : nullptr, {file, line});
}
inline void commit_async() { simt::commit_async(); }
template <int N>
void wait_async() {
  simt::wait_async(N);
}

inline int atomic_add(int* at, int v) {
  const int before = *at;
  *at += v;
  return before;
}
inline int atomic_max(int* at, int v) {
  const int before = *at;
  if (v > before) *at = v;
  return before;
}
inline void fence() {}

// --- threads
inline void block_barrier(BIGFAST_SITE) { simt::block_barrier({file, line}); }
inline void warp_barrier(BIGFAST_SITE) { simt::warp_barrier({file, line}); }

template <class T>
T shuffle(T v, int from_lane, BIGFAST_SITE) {
  struct Mine {
    T v, out;
    int from;
  } mine{v, v, from_lane & 31};
  simt::meet("shuffle", {file, line}, mine, [](void* const* lanes, simt::Site) {
    for (int i = 0; i < simt::kLanes; ++i) {
      auto& to = *static_cast<Mine*>(lanes[i]);
      to.out = static_cast<Mine*>(lanes[to.from])->v;
    }
  });
  return mine.out;
}
template <class T>
T shuffle_xor(T v, int mask, BIGFAST_SITE) {
  return shuffle(v, static_cast<int>(threadIdx.x % 32) ^ mask, file, line);
}
inline uint32_t ballot(bool v, BIGFAST_SITE) {
  struct Mine {
    bool v;
    uint32_t out;
  } mine{v, 0};
  simt::meet("ballot", {file, line}, mine, [](void* const* lanes, simt::Site) {
    uint32_t bits = 0;
    for (int i = 0; i < simt::kLanes; ++i) bits |= uint32_t{static_cast<Mine*>(lanes[i])->v} << i;
    for (int i = 0; i < simt::kLanes; ++i) static_cast<Mine*>(lanes[i])->out = bits;
  });
  return mine.out;
}
inline bool any(bool v, BIGFAST_SITE) { return ballot(v, file, line) != 0; }
inline bool all(bool v, BIGFAST_SITE) { return ballot(v, file, line) == 0xFFFFFFFFu; }

// --- matrix units
struct MatrixRows {
  const uint16_t* row;
  uint32_t out[4];
};
void combine_ldmatrix(void* const* lanes, int count, bool transposed);

template <int kCount, bool kTransposed>
void ldmatrix_any(uint32_t (&out)[kCount], const void* row, const char* name, simt::Site site) {
  if (threadIdx.x % 32 < 8 * kCount) {  // the addresses of the others are not used
    simt::check_aligned(row, 16, name, site);
    if (!simt::is_shared(row, 16)) simt::fail("ldmatrix of what is no shared memory", site);
    simt::log_read(row, 16);
  }
  MatrixRows mine{static_cast<const uint16_t*>(row), {}};
  simt::meet(name, site, mine,
             [](void* const* lanes, simt::Site) { combine_ldmatrix(lanes, kCount, kTransposed); });
  std::memcpy(out, mine.out, sizeof(out));
}
template <int kCount>
void ldmatrix(uint32_t (&out)[kCount], const void* row, BIGFAST_SITE) {
  ldmatrix_any<kCount, false>(out, row, "ldmatrix", {file, line});
}
template <int kCount>
void ldmatrix_trans(uint32_t (&out)[kCount], const void* row, BIGFAST_SITE) {
  ldmatrix_any<kCount, true>(out, row, "ldmatrix_trans", {file, line});
}

template <int kDepth>
constexpr bool kHasProducts = true;

struct Fragments {
  float a[8], b[4], c[4];
};
// k is 8 or 16; the sums are fp32, in the order of k.
void combine_mma(void* const* lanes, int k);

template <class T, int kA, int kB>
void mma_any(float (&c)[4], const uint32_t (&a)[kA], const uint32_t (&b)[kB], simt::Site site) {
  if (kA == 4 && simt::machine().capability < 80) simt::fail("mma m16n8k16 needs sm_80", site);
  Fragments mine{};
  for (int i = 0; i < kA; ++i) {
    const float2 pair = unpack<T>(a[i]);
    mine.a[2 * i] = pair.x, mine.a[2 * i + 1] = pair.y;
  }
  for (int i = 0; i < kB; ++i) {
    const float2 pair = unpack<T>(b[i]);
    mine.b[2 * i] = pair.x, mine.b[2 * i + 1] = pair.y;
  }
  std::memcpy(mine.c, c, sizeof(c));
  simt::meet("mma", site, mine, [](void* const* lanes, simt::Site) { combine_mma(lanes, 4 * kA); });
  std::memcpy(c, mine.c, sizeof(c));
}
template <class T>
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], BIGFAST_SITE) {
  mma_any<T>(c, a, b, {file, line});
}
template <class T>
void mma(float (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], BIGFAST_SITE) {
  static_assert(std::is_same_v<T, f16>);
  mma_any<T>(c, a, b, {file, line});
}

// --- launching
inline int capability() { return simt::machine().capability; }
inline int multiprocessors() { return simt::machine().multiprocessors; }
inline int shared_limit() { return simt::machine().shared_limit; }
inline bool is_capturing(Stream) { return false; }

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream, A... given) {
  const std::tuple<P...> arguments(given...);
  simt::run(grid, block, shared, [&] { std::apply(kernel, arguments); });
}

}  // namespace bigfast::cuda
