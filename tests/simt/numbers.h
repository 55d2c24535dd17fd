// fp16 and bf16 in plain C++, rounded to nearest even as the GPU's conversions do.
#pragma once

#include <bit>
#include <cstdint>

namespace bigfast::cuda {

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

inline float to_float(float v) { return v; }
inline float to_float(bf16 v) { return std::bit_cast<float>(uint32_t{v.bits} << 16); }
inline float to_float(f16 v) {
  const uint32_t sign = uint32_t{v.bits & 0x8000u} << 16, rest = v.bits & 0x7FFFu;
  if (rest >= 0x7C00) return std::bit_cast<float>(sign | 0x7F800000u | (rest & 0x3FFu) << 13);
  if (rest >= 0x0400) return std::bit_cast<float>(sign | ((rest << 13) + (112u << 23)));
  const float magnitude = static_cast<float>(rest) * 0x1p-24f;  // subnormal
  return sign ? -magnitude : magnitude;
}

inline uint16_t bf16_bits(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
inline uint16_t f16_bits(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v), sign = bits >> 16 & 0x8000u;
  const uint32_t rest = bits & 0x7FFFFFFFu;
  if (rest > 0x7F800000u) return 0x7FFF;
  if (rest >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 65520 and up
  if (rest < 0x38800000u) {  // subnormal: the addition rounds
    const uint32_t sum = std::bit_cast<uint32_t>(std::bit_cast<float>(rest) + 0.5f);
    return static_cast<uint16_t>(sign | (sum - 0x3F000000u));
  }
  return static_cast<uint16_t>(sign | ((rest - (112u << 23) + 0xFFFu + ((rest >> 13) & 1u)) >> 13));
}

template <class T>
T from_float(float v);
template <>
inline float from_float<float>(float v) {
  return v;
}
template <>
inline f16 from_float<f16>(float v) {
  return {f16_bits(v)};
}
template <>
inline bf16 from_float<bf16>(float v) {
  return {bf16_bits(v)};
}

}  // namespace bigfast::cuda
