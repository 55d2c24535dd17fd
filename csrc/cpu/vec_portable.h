// F and U as compiler vectors of four: SSE2, NEON, or plain code, whatever the compiler has.
#pragma once

#include <cmath>

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));

struct F {
  static constexpr int W = 4;
  f32x4 v;
  F() = default;
  BIGFAST_INLINE F(f32x4 native) : v(native) {}
  BIGFAST_INLINE explicit F(float x) : v{x, x, x, x} {}
};

BIGFAST_INLINE F operator+(F a, F b) { return a.v + b.v; }
BIGFAST_INLINE F operator-(F a, F b) { return a.v - b.v; }
BIGFAST_INLINE F operator*(F a, F b) { return a.v * b.v; }
BIGFAST_INLINE F operator/(F a, F b) { return a.v / b.v; }
BIGFAST_INLINE F fma(F a, F b, F c) { return a.v * b.v + c.v; }   // a b + c
BIGFAST_INLINE F max(F a, F b) { return a.v > b.v ? a.v : b.v; }  // b where one is NaN
BIGFAST_INLINE F min(F a, F b) { return a.v < b.v ? a.v : b.v; }
BIGFAST_INLINE F sqrt(F a) {
  return f32x4{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])};
}
BIGFAST_INLINE F reciprocal_coarse(F a) { return 1.0f / a.v; }
BIGFAST_INLINE F abs(F a) { return (f32x4)((i32x4)a.v & 0x7fffffff); }
BIGFAST_INLINE F less(F a, F b, F yes, F no) {  // a < b ? yes : no
  return a.v < b.v ? yes.v : no.v;
}
// To nearest even, by way of 1.5 2^23, whose last bit counts ones; floats from 2^22 on stay.
BIGFAST_INLINE F round(F a) {
  const F magic(12582912.0f);
  return less(abs(a), F(4194304.0f), (a + magic) - magic, a);
}
// p 2^n for whole |n| <= 250. Two steps, so that results below 2^-126 lose bits instead of
// wrapping.
BIGFAST_INLINE F scale_by_power_of_2(F p, F n) {
  const i32x4 e = __builtin_convertvector(n.v, i32x4);
  const i32x4 half = e >> 1;
  return p.v * (f32x4)((half + 127) << 23) * (f32x4)((e - half + 127) << 23);
}
BIGFAST_INLINE F swap_pairs(F a) {  // lanes 1 0 3 2 ...
  return f32x4{a.v[1], a.v[0], a.v[3], a.v[2]};
}
BIGFAST_INLINE float sum(F a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
BIGFAST_INLINE float max_lane(F a) {
  const float x = a.v[0] > a.v[2] ? a.v[0] : a.v[2];
  const float y = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
  return x > y ? x : y;
}

BIGFAST_INLINE F first_lanes(F a, int n) {
  return (f32x4)((i32x4)a.v & (i32x4{0, 1, 2, 3} < i32x4{n, n, n, n}));
}
BIGFAST_INLINE F between_lanes(F a, int from, int to) {  // others: 0
  const i32x4 lane{0, 1, 2, 3};
  return (f32x4)((i32x4)a.v & (i32x4{from, from, from, from} <= lane) &
                 (lane < i32x4{to, to, to, to}));
}

BIGFAST_INLINE F load(const float* p) {
  F a;
  std::memcpy(&a.v, p, 16);
  return a;
}
BIGFAST_INLINE F load(const float* p, int n) {
  float lanes[4] = {};
  std::memcpy(lanes, p, n * sizeof(float));
  return load(lanes);
}
BIGFAST_INLINE F load(const bf16* p) {
  const u32x4 x = {p[0].bits, p[1].bits, p[2].bits, p[3].bits};
  return (f32x4)(x << 16);
}
BIGFAST_INLINE F load(const bf16* p, int n) {
  bf16 lanes[4] = {};
  std::memcpy(lanes, p, n * sizeof(bf16));
  return load(lanes);
}

// Round to nearest even; a NaN stays a (quiet) NaN. The bf16 is the high half of each word.
BIGFAST_INLINE F round_to_bf16(F a) {
  const u32x4 x = (u32x4)a.v;
  const u32x4 r = (x + ((x >> 16) & 1) + 0x7fff) & 0xffff0000u;
  const u32x4 nan = (u32x4)(a.v != a.v);
  return (f32x4)((r & ~nan) | (nan & 0x7fc00000u));
}

BIGFAST_INLINE void store(float* p, F a) { std::memcpy(p, &a.v, 16); }
BIGFAST_INLINE void store(float* p, F a, int n) { std::memcpy(p, &a.v, n * sizeof(float)); }
BIGFAST_INLINE void store(bf16* p, F a, int n) {
  const u32x4 r = (u32x4)round_to_bf16(a).v >> 16;
  for (int i = 0; i < n; ++i) p[i].bits = static_cast<uint16_t>(r[i]);
}
BIGFAST_INLINE void store(bf16* p, F a) { store(p, a, 4); }

// a where the bits of columns i.. are set, else 0; i is a multiple of W.
BIGFAST_INLINE F where_bits(const uint8_t* bits, int64_t i, F a) {
  const int32_t four = bits[i / 8] >> (i % 8);
  const i32x4 lane_bit = {1, 2, 4, 8};
  const i32x4 hit = (i32x4{four, four, four, four} & lane_bit) == lane_bit;
  return (f32x4)((i32x4)a.v & hit);
}

struct U {
  static constexpr int W = 4;
  u32x4 v;
  U() = default;
  BIGFAST_INLINE U(u32x4 native) : v(native) {}
  BIGFAST_INLINE explicit U(uint32_t x) : v{x, x, x, x} {}
};

BIGFAST_INLINE U operator+(U a, U b) { return a.v + b.v; }
BIGFAST_INLINE U operator^(U a, U b) { return a.v ^ b.v; }
BIGFAST_INLINE U operator&(U a, U b) { return a.v & b.v; }
BIGFAST_INLINE U to_bits(F a) { return (u32x4)a.v; }
BIGFAST_INLINE F from_bits(U a) { return (f32x4)a.v; }
BIGFAST_INLINE U load(const uint32_t* p) {
  U a;
  std::memcpy(&a.v, p, 16);
  return a;
}
BIGFAST_INLINE U load(const uint16_t* p) { return u32x4{p[0], p[1], p[2], p[3]}; }
BIGFAST_INLINE void store(uint32_t* p, U a) { std::memcpy(p, &a.v, 16); }

// The high and low words of a m.
BIGFAST_INLINE void multiply(U a, uint32_t m, U& high, U& low) {
  for (int i = 0; i < 4; ++i) {
    const uint64_t product = static_cast<uint64_t>(a.v[i]) * m;
    high.v[i] = static_cast<uint32_t>(product >> 32);
    low.v[i] = static_cast<uint32_t>(product);
  }
}

BIGFAST_INLINE U call_order() { return u32x4{0, 1, 2, 3}; }

// The 4 x 8 numbers of 4 calls, in the order of columns.
BIGFAST_INLINE void store_in_order(const U w[4], uint16_t* numbers) {
  for (int call = 0; call < 4; ++call)
    for (int q = 0; q < 4; ++q) {
      numbers[8 * call + 2 * q] = static_cast<uint16_t>(w[q].v[call]);
      numbers[8 * call + 2 * q + 1] = static_cast<uint16_t>(w[q].v[call] >> 16);
    }
}

// One bit for each number, in the order of columns: number >= threshold.
BIGFAST_INLINE void keep_bits(const U w[4], int threshold, uint8_t* bits) {
  const uint32_t limit = static_cast<uint32_t>(threshold);
  for (int call = 0; call < 4; ++call) {
    uint32_t byte = 0;
    for (int q = 0; q < 4; ++q) {
      byte |= static_cast<uint32_t>((w[q].v[call] & 0xffff) >= limit) << (2 * q);
      byte |= static_cast<uint32_t>((w[q].v[call] >> 16) >= limit) << (2 * q + 1);
    }
    bits[call] = static_cast<uint8_t>(byte);
  }
}

// As keep_bits, of attention's calls in their natural order: the four calls have the numbers of 32
// columns, word g those of columns 8 g .. 8 g + 7.
BIGFAST_INLINE void keep_bits_scores(const U w[4], int threshold, uint8_t* bits) {
  const uint32_t limit = static_cast<uint32_t>(threshold);
  for (int g = 0; g < 4; ++g) {
    uint32_t byte = 0;
    for (int q = 0; q < 4; ++q) {
      byte |= static_cast<uint32_t>((w[g].v[q] & 0xffff) >= limit) << (2 * q);
      byte |= static_cast<uint32_t>((w[g].v[q] >> 16) >= limit) << (2 * q + 1);
    }
    bits[g] = static_cast<uint8_t>(byte);
  }
}

// Lane j of row i becomes lane i of row j.
BIGFAST_INLINE void transpose(F r[4]) {
  const f32x4 low01 = __builtin_shufflevector(r[0].v, r[1].v, 0, 4, 1, 5);
  const f32x4 low23 = __builtin_shufflevector(r[2].v, r[3].v, 0, 4, 1, 5);
  const f32x4 high01 = __builtin_shufflevector(r[0].v, r[1].v, 2, 6, 3, 7);
  const f32x4 high23 = __builtin_shufflevector(r[2].v, r[3].v, 2, 6, 3, 7);
  r[0] = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
  r[1] = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
  r[2] = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
  r[3] = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
