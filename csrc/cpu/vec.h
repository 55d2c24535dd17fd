// The small vector type that every kernel is written in: F holds F::W floats, U as many uint32.
//
// One of three bodies is chosen by the instruction set that the file is compiled for; what can be
// written on top of them stands here once. All of it is in an anonymous namespace, so that the
// linker cannot hand wide code to the portable kernels.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/types.h"

#define BIGFAST_INLINE inline __attribute__((always_inline))
#define BIGFAST_LAMBDA __attribute__((always_inline))

#if BIGFAST_ISA_avx512 || BIGFAST_ISA_avx512_bf16
#include "cpu/vec_avx512.h"
#elif BIGFAST_ISA_avx2
#include "cpu/vec_avx2.h"
#else
#include "cpu/vec_portable.h"
#endif

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// How many lanes a load or store touches: all, or the first n.
struct Full {};
struct Part {
  int n;
};

BIGFAST_INLINE F load(const float* p, Full) { return load(p); }
BIGFAST_INLINE F load(const bf16* p, Full) { return load(p); }
BIGFAST_INLINE F load(const float* p, Part part) { return load(p, part.n); }  // other lanes: 0
BIGFAST_INLINE F load(const bf16* p, Part part) { return load(p, part.n); }
BIGFAST_INLINE void store(float* p, F v, Full) { store(p, v); }
BIGFAST_INLINE void store(bf16* p, F v, Full) { store(p, v); }
BIGFAST_INLINE void store(float* p, F v, Part part) { store(p, v, part.n); }
BIGFAST_INLINE void store(bf16* p, F v, Part part) { store(p, v, part.n); }
BIGFAST_INLINE F only(F v, Full) { return v; }
BIGFAST_INLINE F only(F v, Part part) { return first_lanes(v, part.n); }  // other lanes: 0

// f(i, lanes) for the vectors that cover n columns; the last may be a Part.
template <class Body>
BIGFAST_INLINE void columns(int64_t n, Body&& f) {
  int64_t i = 0;
  for (; i + F::W <= n; i += F::W) f(i, Full{});
  if (i < n) f(i, Part{static_cast<int>(n - i)});
}

// v after a trip through T: what a reader of a stored T would see.
BIGFAST_INLINE F rounded(F v, float) { return v; }
BIGFAST_INLINE F rounded(F v, bf16) { return round_to_bf16(v); }

BIGFAST_INLINE float to_float(float v) { return v; }
BIGFAST_INLINE float to_float(bf16 v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// v rounded to bf16 down or up by chance, for numbers uniform in 0..65535: right on average. NaN
// and Inf stay.
BIGFAST_INLINE F round_stochastically(F v, U numbers) {
  const F rounded = from_bits((to_bits(v) + numbers) & U(0xffff0000u));
  return less(abs(v), F(__builtin_inff()), rounded, v);
}

// 2^x, relative error below 1.4 2^-24; -inf gives 0, inf gives inf, NaN stays NaN (the second
// operand of min and max). Cody and Waite: n = round(x), then for 2^(x - n) on [-1/2, 1/2] the
// polynomial of degree 6 with the smallest relative error.
BIGFAST_INLINE F exp2(F x) {
  x = max(F(-160.0f), min(F(160.0f), x));
  const F n = round(x);
  const F f = x - n;
  F p = F(1.535336196e-4f);
  p = fma(p, f, F(1.339887502e-3f));
  p = fma(p, f, F(9.618436918e-3f));
  p = fma(p, f, F(5.550332367e-2f));
  p = fma(p, f, F(2.402264774e-1f));
  p = fma(p, f, F(6.931471825e-1f));
  p = fma(p, f, F(1.0f));
  return scale_by_power_of_2(p, n);
}

// 2^x for |x| <= 200, relative error below 3e-6, none at 0: enough for what is rounded to bf16.
BIGFAST_INLINE F exp2_coarse_bounded(F x) {
  const F n = round(x);
  const F f = x - n;
  F p = fma(F(9.582852e-3f), f, F(5.5906426e-2f));
  p = fma(p, f, F(2.4024099e-1f));
  p = fma(p, f, F(6.9312418e-1f));
  p = fma(p, f, F(1.0f));
  return scale_by_power_of_2(p, n);
}
// The same for x <= 100, however small.
BIGFAST_INLINE F exp2_coarse(F x) { return exp2_coarse_bounded(max(F(-160.0f), x)); }

// e^x, as exactly and with the same limits. ln 2 is taken off in two parts, so that r keeps its
// bits.
BIGFAST_INLINE F exp(F x) {
  x = max(F(-110.0f), min(F(100.0f), x));
  const F n = round(x * F(1.44269504088896341f));
  F r = fma(n, F(-0.693145751953125f), x);
  r = fma(n, F(-1.428606765330187e-6f), r);
  F p = F(1.381459879e-3f);
  p = fma(p, r, F(8.368716575e-3f));
  p = fma(p, r, F(4.166838899e-2f));
  p = fma(p, r, F(1.666652113e-1f));
  p = fma(p, r, F(4.999999404e-1f));
  p = fma(p, r * r, r) + F(1.0f);
  return scale_by_power_of_2(p, n);
}

// The same functions, as exactly as a result that is stored as float or as bf16 needs them:
// reciprocal_coarse is within 4e-4 of 1 / x, and 0 for inf.
BIGFAST_INLINE F reciprocal(F x, float) { return F(1.0f) / x; }
BIGFAST_INLINE F reciprocal(F x, bf16) { return reciprocal_coarse(x); }
BIGFAST_INLINE F exp2(F x, float) { return exp2(x); }
BIGFAST_INLINE F exp2(F x, bf16) { return exp2_coarse(x); }

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
