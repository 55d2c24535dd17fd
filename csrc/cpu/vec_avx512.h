// F and U on AVX-512 (F, BW, VL, DQ), with the bf16 conversions where the set has them.
#pragma once

#include <immintrin.h>

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

struct F {
  static constexpr int W = 16;
  __m512 v;
  F() = default;
  BIGFAST_INLINE F(__m512 native) : v(native) {}
  BIGFAST_INLINE explicit F(float x) : v(_mm512_set1_ps(x)) {}
};

BIGFAST_INLINE F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
BIGFAST_INLINE F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
BIGFAST_INLINE F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
BIGFAST_INLINE F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
BIGFAST_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }  // a b + c
BIGFAST_INLINE F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }  // b where one is NaN
BIGFAST_INLINE F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
BIGFAST_INLINE F sqrt(F a) { return _mm512_sqrt_ps(a.v); }
BIGFAST_INLINE F reciprocal_coarse(F a) { return _mm512_rcp14_ps(a.v); }
BIGFAST_INLINE F abs(F a) { return _mm512_abs_ps(a.v); }
BIGFAST_INLINE F round(F a) { return _mm512_roundscale_ps(a.v, 8); }
BIGFAST_INLINE F less(F a, F b, F yes, F no) {  // a < b ? yes : no
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v);
}
// p 2^n for whole |n| <= 250.
BIGFAST_INLINE F scale_by_power_of_2(F p, F n) { return _mm512_scalef_ps(p.v, n.v); }
BIGFAST_INLINE F swap_pairs(F a) { return _mm512_permute_ps(a.v, 0xb1); }  // lanes 1 0 3 2 ...
BIGFAST_INLINE float sum(F a) { return _mm512_reduce_add_ps(a.v); }
BIGFAST_INLINE float max_lane(F a) { return _mm512_reduce_max_ps(a.v); }

BIGFAST_INLINE __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
BIGFAST_INLINE F first_lanes(F a, int n) { return _mm512_maskz_mov_ps(first(n), a.v); }
BIGFAST_INLINE F between_lanes(F a, int from, int to) {  // others: 0
  return _mm512_maskz_mov_ps(static_cast<__mmask16>(first(to) & ~first(from)), a.v);
}

BIGFAST_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
BIGFAST_INLINE F load(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
BIGFAST_INLINE F widen(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
BIGFAST_INLINE F load(const bf16* p) { return widen(_mm256_loadu_si256((const __m256i*)p)); }
BIGFAST_INLINE F load(const bf16* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }

// Round to nearest even; a NaN stays a (quiet) NaN.
BIGFAST_INLINE __m256i narrow(F a) {
#if BIGFAST_ISA_avx512_bf16
  return (__m256i)_mm512_cvtneps_pbh(a.v);
#else
  const __m512i x = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  r = _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q),
                            _mm512_set1_epi32(0x7fc00000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
#endif
}
BIGFAST_INLINE F round_to_bf16(F a) { return widen(narrow(a)); }

BIGFAST_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
BIGFAST_INLINE void store(float* p, F a, int n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
BIGFAST_INLINE void store(bf16* p, F a) { _mm256_storeu_si256((__m256i*)p, narrow(a)); }
BIGFAST_INLINE void store(bf16* p, F a, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow(a)); }

// a where the bits of columns i.. are set, else 0; i is a multiple of W.
BIGFAST_INLINE F where_bits(const uint8_t* bits, int64_t i, F a) {
  __mmask16 mask;
  std::memcpy(&mask, bits + i / 8, 2);
  return _mm512_maskz_mov_ps(mask, a.v);
}

struct U {
  static constexpr int W = 16;
  __m512i v;
  U() = default;
  BIGFAST_INLINE U(__m512i native) : v(native) {}
  BIGFAST_INLINE explicit U(uint32_t x) : v(_mm512_set1_epi32(static_cast<int>(x))) {}
};

BIGFAST_INLINE U operator+(U a, U b) { return _mm512_add_epi32(a.v, b.v); }
BIGFAST_INLINE U operator^(U a, U b) { return _mm512_xor_si512(a.v, b.v); }
BIGFAST_INLINE U operator&(U a, U b) { return _mm512_and_si512(a.v, b.v); }
BIGFAST_INLINE U to_bits(F a) { return _mm512_castps_si512(a.v); }
BIGFAST_INLINE F from_bits(U a) { return _mm512_castsi512_ps(a.v); }
BIGFAST_INLINE U load(const uint32_t* p) { return _mm512_loadu_si512(p); }
BIGFAST_INLINE U load(const uint16_t* p) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
}
BIGFAST_INLINE void store(uint32_t* p, U a) { _mm512_storeu_si512(p, a.v); }

// The high and low words of a m.
BIGFAST_INLINE void multiply(U a, uint32_t m, U& high, U& low) {
  const __m512i mm = _mm512_set1_epi64(m);
  const __m512i even = _mm512_mul_epu32(a.v, mm);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), mm);
  high = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
  low = _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
}

// Word q of call 4 i + b (i, b in 0..3) lies in lane 4 b + i: then `in_order` has no lanes to
// cross.
BIGFAST_INLINE U call_order() {
  return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}

// The 16 x 8 numbers of 16 calls, in the order of columns.
BIGFAST_INLINE void in_order(const U w[4], __m512i numbers[4]) {
  const __m512i low01 = _mm512_unpacklo_epi32(w[0].v, w[1].v);
  const __m512i low23 = _mm512_unpacklo_epi32(w[2].v, w[3].v);
  const __m512i high01 = _mm512_unpackhi_epi32(w[0].v, w[1].v);
  const __m512i high23 = _mm512_unpackhi_epi32(w[2].v, w[3].v);
  numbers[0] = _mm512_unpacklo_epi64(low01, low23);
  numbers[1] = _mm512_unpackhi_epi64(low01, low23);
  numbers[2] = _mm512_unpacklo_epi64(high01, high23);
  numbers[3] = _mm512_unpackhi_epi64(high01, high23);
}

BIGFAST_INLINE void store_in_order(const U w[4], uint16_t* numbers) {
  __m512i ordered[4];
  in_order(w, ordered);
  for (int i = 0; i < 4; ++i) _mm512_storeu_si512(numbers + 32 * i, ordered[i]);
}

// One bit for each number, in the order of columns: number >= threshold.
BIGFAST_INLINE void keep_bits(const U w[4], int threshold, uint8_t* bits) {
  const __m512i limit = _mm512_set1_epi16(static_cast<short>(threshold));
  __m512i numbers[4];
  in_order(w, numbers);
  for (int i = 0; i < 4; ++i) {
    const __mmask32 mask = _mm512_cmpge_epu16_mask(numbers[i], limit);
    std::memcpy(bits + 4 * i, &mask, 4);
  }
}

// As keep_bits, of attention's calls in their natural order: four calls have the numbers of 32
// columns, word g those of columns 8 g .. 8 g + 7.
BIGFAST_INLINE void keep_bits_scores(const U w[4], int threshold, uint8_t* bits) {
  const __m512i limit = _mm512_set1_epi16(static_cast<short>(threshold));
  __m128i byte[4];  // byte r of byte[g]: columns 32 r + 8 g ..
  for (int g = 0; g < 4; ++g)
    byte[g] = _mm_cvtsi32_si128(static_cast<int>(_mm512_cmpge_epu16_mask(w[g].v, limit)));
  const __m128i low = _mm_unpacklo_epi8(byte[0], byte[1]);
  const __m128i high = _mm_unpacklo_epi8(byte[2], byte[3]);
  _mm_storeu_si128((__m128i*)bits, _mm_unpacklo_epi16(low, high));
}

// Lane j of row i becomes lane i of row j.
BIGFAST_INLINE void transpose(F r[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  __m512 u[16];  // u[4 b + j]: rows 4 b .. 4 b + 3 of columns j, j + 4, j + 8, j + 12
  for (int b = 0; b < 16; b += 4) {
    for (int half = 0; half < 2; ++half) {
      const __m512d x = _mm512_castps_pd(t[b + half]), y = _mm512_castps_pd(t[b + half + 2]);
      u[b + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
      u[b + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
    }
  }
  for (int j = 0; j < 4; ++j) {
    const __m512 even0 = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88);
    const __m512 odd0 = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xdd);
    const __m512 even1 = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88);
    const __m512 odd1 = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xdd);
    r[j] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    r[4 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    r[8 + j] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
    r[12 + j] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
  }
}

#if BIGFAST_ISA_avx512_bf16
// Lane i: a's and b's lane i as bf16, a's in the low half. The bits are no float.
BIGFAST_INLINE F pairs(F a, F b) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b.v, a.v);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, both));
}
// c plus the dot product of the pairs in a and b, lane by lane.
BIGFAST_INLINE F dot_pairs(F a, F b, F c) {
  return _mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v);
}
#endif

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
