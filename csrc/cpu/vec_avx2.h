// F and U on AVX2 with FMA.
#pragma once

#include <immintrin.h>

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

struct F {
  static constexpr int W = 8;
  __m256 v;
  F() = default;
  BIGFAST_INLINE F(__m256 native) : v(native) {}
  BIGFAST_INLINE explicit F(float x) : v(_mm256_set1_ps(x)) {}
};

BIGFAST_INLINE F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
BIGFAST_INLINE F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
BIGFAST_INLINE F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
BIGFAST_INLINE F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
BIGFAST_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }  // a b + c
BIGFAST_INLINE F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }  // b where one is NaN
BIGFAST_INLINE F min(F a, F b) { return _mm256_min_ps(a.v, b.v); }
BIGFAST_INLINE F sqrt(F a) { return _mm256_sqrt_ps(a.v); }
BIGFAST_INLINE F reciprocal_coarse(F a) { return _mm256_rcp_ps(a.v); }
BIGFAST_INLINE F abs(F a) {
  return _mm256_and_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)));
}
BIGFAST_INLINE F round(F a) { return _mm256_round_ps(a.v, 8); }
BIGFAST_INLINE F less(F a, F b, F yes, F no) {  // a < b ? yes : no
  return _mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ));
}
// p 2^n for whole |n| <= 250. Two steps, so that results below 2^-126 lose bits instead of
// wrapping.
BIGFAST_INLINE F scale_by_power_of_2(F p, F n) {
  const __m256i e = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(e, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i rest = _mm256_sub_epi32(e, half);
  const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(p.v, a), b);
}
BIGFAST_INLINE F swap_pairs(F a) { return _mm256_permute_ps(a.v, 0xb1); }  // lanes 1 0 3 2 ...
BIGFAST_INLINE float sum(F a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
BIGFAST_INLINE float max_lane(F a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

BIGFAST_INLINE __m256i first(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
BIGFAST_INLINE F first_lanes(F a, int n) {
  return _mm256_and_ps(a.v, _mm256_castsi256_ps(first(n)));
}
BIGFAST_INLINE F between_lanes(F a, int from, int to) {  // others: 0
  const __m256i mask = _mm256_andnot_si256(first(from), first(to));
  return _mm256_and_ps(a.v, _mm256_castsi256_ps(mask));
}

BIGFAST_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
BIGFAST_INLINE F load(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
BIGFAST_INLINE F widen(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
BIGFAST_INLINE F load(const bf16* p) { return widen(_mm_loadu_si128((const __m128i*)p)); }
BIGFAST_INLINE F load(const bf16* p, int n) {
  bf16 lanes[8] = {};
  std::memcpy(lanes, p, n * sizeof(bf16));
  return load(lanes);
}

// Round to nearest even; a NaN stays a (quiet) NaN.
BIGFAST_INLINE __m128i narrow(F a) {
  const __m256i x = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 nan = _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q);
  r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc00000), _mm256_castps_si256(nan));
  r = _mm256_srli_epi32(r, 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
BIGFAST_INLINE F round_to_bf16(F a) { return widen(narrow(a)); }

BIGFAST_INLINE void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
BIGFAST_INLINE void store(float* p, F a, int n) { _mm256_maskstore_ps(p, first(n), a.v); }
BIGFAST_INLINE void store(bf16* p, F a) { _mm_storeu_si128((__m128i*)p, narrow(a)); }
BIGFAST_INLINE void store(bf16* p, F a, int n) {
  bf16 lanes[8];
  store(lanes, a);
  std::memcpy(p, lanes, n * sizeof(bf16));
}

// a where the bits of columns i.. are set, else 0; i is a multiple of W.
BIGFAST_INLINE F where_bits(const uint8_t* bits, int64_t i, F a) {
  const __m256i lane_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i hit = _mm256_and_si256(_mm256_set1_epi32(bits[i / 8]), lane_bit);
  return _mm256_and_ps(a.v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(hit, lane_bit)));
}

struct U {
  static constexpr int W = 8;
  __m256i v;
  U() = default;
  BIGFAST_INLINE U(__m256i native) : v(native) {}
  BIGFAST_INLINE explicit U(uint32_t x) : v(_mm256_set1_epi32(static_cast<int>(x))) {}
};

BIGFAST_INLINE U operator+(U a, U b) { return _mm256_add_epi32(a.v, b.v); }
BIGFAST_INLINE U operator^(U a, U b) { return _mm256_xor_si256(a.v, b.v); }
BIGFAST_INLINE U operator&(U a, U b) { return _mm256_and_si256(a.v, b.v); }
BIGFAST_INLINE U to_bits(F a) { return _mm256_castps_si256(a.v); }
BIGFAST_INLINE F from_bits(U a) { return _mm256_castsi256_ps(a.v); }
BIGFAST_INLINE U load(const uint32_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
BIGFAST_INLINE U load(const uint16_t* p) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
}
BIGFAST_INLINE void store(uint32_t* p, U a) { _mm256_storeu_si256((__m256i*)p, a.v); }

// The high and low words of a m.
BIGFAST_INLINE void multiply(U a, uint32_t m, U& high, U& low) {
  const __m256i mm = _mm256_set1_epi64x(m);
  const __m256i even = _mm256_mul_epu32(a.v, mm);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a.v, 32), mm);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

// Word q of call 2 i + b (i in 0..3, b in 0..1) lies in lane 4 b + i: then `in_order` has no lanes
// to cross.
BIGFAST_INLINE U call_order() { return _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7); }

// The 8 x 8 numbers of 8 calls, in the order of columns.
BIGFAST_INLINE void in_order(const U w[4], __m256i numbers[4]) {
  const __m256i low01 = _mm256_unpacklo_epi32(w[0].v, w[1].v);
  const __m256i low23 = _mm256_unpacklo_epi32(w[2].v, w[3].v);
  const __m256i high01 = _mm256_unpackhi_epi32(w[0].v, w[1].v);
  const __m256i high23 = _mm256_unpackhi_epi32(w[2].v, w[3].v);
  numbers[0] = _mm256_unpacklo_epi64(low01, low23);
  numbers[1] = _mm256_unpackhi_epi64(low01, low23);
  numbers[2] = _mm256_unpacklo_epi64(high01, high23);
  numbers[3] = _mm256_unpackhi_epi64(high01, high23);
}

BIGFAST_INLINE void store_in_order(const U w[4], uint16_t* numbers) {
  __m256i ordered[4];
  in_order(w, ordered);
  for (int i = 0; i < 4; ++i) _mm256_storeu_si256((__m256i*)(numbers + 16 * i), ordered[i]);
}

// One bit for each number, in the order of columns: number >= threshold.
BIGFAST_INLINE void keep_bits(const U w[4], int threshold, uint8_t* bits) {
  const __m256i limit = _mm256_set1_epi16(static_cast<short>(threshold));
  __m256i numbers[4];
  in_order(w, numbers);
  for (int i = 0; i < 4; ++i) {
    const __m256i keep = _mm256_cmpeq_epi16(_mm256_max_epu16(numbers[i], limit), numbers[i]);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(keep), _mm256_extracti128_si256(keep, 1));
    const uint16_t mask = static_cast<uint16_t>(_mm_movemask_epi8(bytes));
    std::memcpy(bits + 2 * i, &mask, 2);
  }
}

// As keep_bits, of attention's calls in their natural order: four calls have the numbers of 32
// columns, word g those of columns 8 g .. 8 g + 7.
BIGFAST_INLINE void keep_bits_scores(const U w[4], int threshold, uint8_t* bits) {
  const __m256i limit = _mm256_set1_epi16(static_cast<short>(threshold));
  __m256i keep[4];
  for (int g = 0; g < 4; ++g) keep[g] = _mm256_cmpeq_epi16(_mm256_max_epu16(w[g].v, limit), w[g].v);
  // Packing works within halves, and each half is one run of 32 columns.
  const __m256i low = _mm256_packs_epi16(keep[0], keep[1]);
  const __m256i high = _mm256_packs_epi16(keep[2], keep[3]);
  const __m256i run[2] = {_mm256_permute2x128_si256(low, high, 0x20),
                          _mm256_permute2x128_si256(low, high, 0x31)};
  for (int i = 0; i < 2; ++i) {
    const int mask = _mm256_movemask_epi8(run[i]);
    std::memcpy(bits + 4 * i, &mask, 4);
  }
}

// Lane j of row i becomes lane i of row j.
BIGFAST_INLINE void transpose(F r[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  for (int b = 0; b < 8; b += 4) {  // u[4 b + j]: rows 4 b .. 4 b + 3 of columns j, j + 4
    for (int half = 0; half < 2; ++half) {
      u[b + 2 * half] = _mm256_shuffle_ps(t[b + half], t[b + half + 2], 0x44);
      u[b + 2 * half + 1] = _mm256_shuffle_ps(t[b + half], t[b + half + 2], 0xee);
    }
  }
  for (int j = 0; j < 4; ++j) {
    r[j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x20);
    r[4 + j] = _mm256_permute2f128_ps(u[j], u[4 + j], 0x31);
  }
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
