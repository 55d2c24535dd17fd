// Eight neighbouring numbers of a row, as a thread holds them: in fp32, whatever is in memory. They
// are one call of Philox (row dropout), and 16 bytes of 16-bit numbers.
#pragma once

#include "args/types.h"
#include "cuda/device.cuh"

namespace bigfast::cuda {

constexpr int kRun = 8;

// A tensor whose dtype is known when the kernel runs, and whose rows may begin anywhere: its
// numbers are read and written one by one.
struct Mixed {};

__device__ __forceinline__ float load_number(const void* from, DType dtype, int64_t at) {
  if (dtype == DType::f32) return static_cast<const float*>(from)[at];
  if (dtype == DType::bf16) return to_float(static_cast<const bf16*>(from)[at]);
  return to_float(static_cast<const f16*>(from)[at]);
}
__device__ __forceinline__ void store_number(void* to, DType dtype, int64_t at, float v) {
  if (dtype == DType::f32) {
    static_cast<float*>(to)[at] = v;
  } else if (dtype == DType::bf16) {
    static_cast<bf16*>(to)[at] = from_float<bf16>(v);
  } else {
    static_cast<f16*>(to)[at] = from_float<f16>(v);
  }
}

// Numbers at .. at + inside - 1 of a tensor, and zeros behind them. Where T is a type, all eight
// are there, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ void load_run(const void* from, DType dtype, int64_t at, int inside,
                                         float (&out)[kRun]) {
  if constexpr (std::is_same_v<T, Mixed>) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) out[i] = i < inside ? load_number(from, dtype, at + i) : 0.0f;
  } else {
    constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
    for (int part = 0; part < kRun / kWidth; ++part) {
      const auto v = load_vec<kWidth>(static_cast<const T*>(from) + at + part * kWidth);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) out[part * kWidth + i] = to_float(v[i]);
    }
  }
}

template <class T>
__device__ __forceinline__ void store_run(void* to, DType dtype, int64_t at, int inside,
                                          const float (&v)[kRun]) {
  if constexpr (std::is_same_v<T, Mixed>) {
#pragma unroll
    for (int i = 0; i < kRun; ++i)
      if (i < inside) store_number(to, dtype, at + i, v[i]);
  } else {
    constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
    for (int part = 0; part < kRun / kWidth; ++part) {
      Vec<T, kWidth> out;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) out[i] = from_float<T>(v[part * kWidth + i]);
      store_vec(static_cast<T*>(to) + at + part * kWidth, out);
    }
  }
}

// What a tensor of T keeps of v.
template <class T>
__device__ __forceinline__ float rounded(float v, DType dtype) {
  if constexpr (!std::is_same_v<T, Mixed>) {
    return to_float(from_float<T>(v));
  } else {
    if (dtype == DType::f32) return v;
    return dtype == DType::bf16 ? to_float(from_float<bf16>(v)) : to_float(from_float<f16>(v));
  }
}

// The same of a tensor of few rows, which stays in the cache: its dtype is looked up each time.
// kVectors: all eight are there, aligned.
template <bool kVectors>
__device__ __forceinline__ void load_cached(const void* from, DType dtype, int64_t at, int inside,
                                            float (&out)[kRun]) {
  if (!kVectors) return load_run<Mixed>(from, dtype, at, inside, out);
  if (dtype == DType::f32) return load_run<float>(from, dtype, at, inside, out);
  if (dtype == DType::bf16) return load_run<bf16>(from, dtype, at, inside, out);
  load_run<f16>(from, dtype, at, inside, out);
}

// Dropout of columns col .. col + 7 of a row, col a multiple of 8.
__device__ __forceinline__ void drop_run(const Dropout& dropout, uint64_t key, uint32_t row,
                                         int64_t col, float (&v)[kRun]) {
  const Numbers numbers = philox(static_cast<uint32_t>(col / kRun), row, 0, key);
  const uint32_t threshold = static_cast<uint32_t>(dropout.threshold);
#pragma unroll
  for (int i = 0; i < kRun; ++i) v[i] = numbers[i] >= threshold ? v[i] * dropout.scale : 0.0f;
}

}  // namespace bigfast::cuda
