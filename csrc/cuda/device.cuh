// What a kernel is written in: every instruction that plain C++ has no word for, behind a function.
// All inline PTX of BigFast is here; nvcc takes it from here, and a C++ compiler takes the same
// functions from their twin in tests/simt, which runs a kernel on the CPU, a fiber per thread.
//
// The contract for whoever writes a kernel
// - csrc/cuda/<op>.cuh: the kernels, and the host function that launches them, on pointers, sizes
//   and a stream; <op>.cu instantiates it. No torch, no PTX, no CUDA header: this file alone.
// - __global__, __device__, __forceinline__, __launch_bounds__, threadIdx, blockIdx, blockDim,
//   gridDim, dim3: as ever. Blocks are one-dimensional multiples of 32 threads.
// - Numbers: float, f16, bf16; to_float(v), from_float<T>(v), and two in a register: pack<T>(low,
//   high), unpack<T>(word). No operators on f16 and bf16.
// - Shared memory: BIGFAST_SHARED(float, partial, [kWarps][32]) where CUDA writes
//   __shared__ float partial[kWarps][32], on a line of its own that all threads reach;
//   dynamic_shared<T>() is the block's dynamic memory, 128-byte aligned. It holds NaN at first.
// - Memory: Vec<T, N> with load_vec<N>(pointer) and store_vec(pointer, vec), of up to 16 bytes,
//   aligned to their size; copy_async 16 bytes from global to shared memory, commit_async, and
//   wait_async<N>, behind which all but the newest N groups have landed, for the thread that issued
//   them: a block_barrier() shows them to the others. Below sm_80 it copies at once.
//   in_global(pointer) for pointers that are no argument of the kernel but stand in memory.
// - Threads: block_barrier() and warp_barrier(), which all threads of the block or warp reach
//   together, in one place of the source; shuffle, shuffle_xor, ballot, any, all: by all 32 lanes,
//   in one place, no mask. Only barriers order accesses to shared memory; a shuffle does not.
// - Matrix units: ldmatrix and ldmatrix_trans, mma (m16n8k16 of sm_80; m16n8k8, f16 alone, of
//   sm_75). What an architecture lacks traps: the launcher picks the kernel by capability().
// - Integer atomics alone: sums of floats in any order would not be reproducible. Blocks run in any
//   order and do not wait for each other; where the last one ends the work, fence() comes before
//   its atomic.
// - launch(kernel, grid, block, shared bytes, stream, arguments...) checks, and throws.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>

// Aligned, so that vectors fit in.
#define BIGFAST_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__

namespace bigfast::cuda {

using f16 = __half;
using bf16 = __nv_bfloat16;
using Stream = cudaStream_t;

// --- numbers -------------------------------------------------------------------------------------
__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(f16 v) { return __half2float(v); }
__device__ __forceinline__ float to_float(bf16 v) { return __bfloat162float(v); }

template <class T>
__device__ __forceinline__ T from_float(float v) {
  if constexpr (std::is_same_v<T, f16>) {
    return __float2half_rn(v);
  } else if constexpr (std::is_same_v<T, bf16>) {
    return __float2bfloat16_rn(v);
  } else {
    return v;
  }
}

// Two numbers in a register, the first in its low half.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t word;
  if constexpr (std::is_same_v<T, f16>) {
    const __half2 pair = __floats2half2_rn(low, high);
    memcpy(&word, &pair, 4);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    memcpy(&word, &pair, 4);
  }
  return word;
}

template <class T>
__device__ __forceinline__ float2 unpack(uint32_t word) {
  if constexpr (std::is_same_v<T, f16>) {
    __half2 pair;
    memcpy(&pair, &word, 4);
    return __half22float2(pair);
  } else {
    return {__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u)};
  }
}

// The fast ones of the special function units: relative errors of 2^-22 and 2^-23.
__device__ __forceinline__ float fast_exp2(float v) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
}
__device__ __forceinline__ float fast_log2(float v) {
  float out;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
}
__device__ __forceinline__ float fast_rsqrt(float v) { return rsqrtf(v); }
__device__ __forceinline__ uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }

// v, of which the compiler now knows nothing: what follows from it is computed in its place, and
// does not wait in registers before a loop.
__device__ __forceinline__ int opaque(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

// --- memory --------------------------------------------------------------------------------------
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char bigfast_dynamic_shared[];
  return reinterpret_cast<T*>(bigfast_dynamic_shared);
}

template <int kBytes>
struct VecWord;
template <>
struct VecWord<1> {
  using type = uint8_t;
};
template <>
struct VecWord<2> {
  using type = uint16_t;
};
template <>
struct VecWord<4> {
  using type = uint32_t;
};
template <>
struct VecWord<8> {
  using type = uint2;
};
template <>
struct VecWord<16> {
  using type = uint4;
};

template <class T, int N>
struct Vec {
  T v[N];
  __device__ __forceinline__ T& operator[](int i) { return v[i]; }
  __device__ __forceinline__ const T& operator[](int i) const { return v[i]; }
};

// A pointer to global memory that was read from memory: the compiler knows no more of it.
template <class T>
__device__ __forceinline__ T* in_global(T* pointer) {
  __builtin_assume(__isGlobal(pointer));
  return pointer;
}

// One instruction each: the words are what the compiler moves as a whole.
template <int N, class T>
__device__ __forceinline__ Vec<T, N> load_vec(const T* from) {
  const auto word = *reinterpret_cast<const typename VecWord<N * sizeof(T)>::type*>(from);
  Vec<T, N> out;
  memcpy(&out, &word, sizeof(word));
  return out;
}
template <class T, int N>
__device__ __forceinline__ void store_vec(T* to, const Vec<T, N>& from) {
  typename VecWord<N * sizeof(T)>::type word;
  memcpy(&word, &from, sizeof(word));
  *reinterpret_cast<typename VecWord<N * sizeof(T)>::type*>(to) = word;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes, both sides aligned to 16; zeros where !valid, and then `global` is not read.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid = true) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
#else
  *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : uint4{0, 0, 0, 0};
#endif
}
__device__ __forceinline__ void commit_async() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N>
__device__ __forceinline__ void wait_async() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Both return what was there before.
__device__ __forceinline__ int atomic_add(int* at, int v) { return atomicAdd(at, v); }
__device__ __forceinline__ int atomic_max(int* at, int v) { return atomicMax(at, v); }
__device__ __forceinline__ void fence() { __threadfence(); }

// --- threads -------------------------------------------------------------------------------------
__device__ __forceinline__ void block_barrier() { __syncthreads(); }
__device__ __forceinline__ void warp_barrier() { __syncwarp(); }
template <class T>
__device__ __forceinline__ T shuffle(T v, int from_lane) {
  return __shfl_sync(0xFFFFFFFFu, v, from_lane);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T v, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, v, mask);
}
__device__ __forceinline__ uint32_t ballot(bool v) { return __ballot_sync(0xFFFFFFFFu, v); }
__device__ __forceinline__ bool any(bool v) { return __any_sync(0xFFFFFFFFu, v); }
__device__ __forceinline__ bool all(bool v) { return __all_sync(0xFFFFFFFFu, v); }

// --- matrix units --------------------------------------------------------------------------------
// kCount 8 x 8 matrices of 16-bit elements. Lane 8 i + j has the address of row j of matrix i,
// 16-byte aligned, in shared memory; out[i] of lane l has elements (l / 4, 2 (l % 4) + {0, 1}) of
// matrix i, or, transposed, (2 (l % 4) + {0, 1}, l / 4). Every lane gives a valid address.
template <int kCount>
__device__ __forceinline__ void ldmatrix(uint32_t (&out)[kCount], const void* row) {
  const uint32_t at = shared_address(row);
  if constexpr (kCount == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(at)
                 : "memory");
  } else {
    static_assert(kCount == 1);
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(out[0])
                 : "r"(at)
                 : "memory");
  }
}
template <int kCount>
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&out)[kCount], const void* row) {
  const uint32_t at = shared_address(row);
  if constexpr (kCount == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
  } else if constexpr (kCount == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(at)
                 : "memory");
  } else {
    static_assert(kCount == 1);
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(out[0])
                 : "r"(at)
                 : "memory");
  }
}

// c (16, 8) += a (16, 16) b (16, 8), or k = 8 with half as many registers of a and b. With g = lane
// / 4, t = lane % 4, two neighbouring elements a register, low half first:
//   a[0] (g, 2t..), a[1] (g + 8, 2t..), a[2] (g, 2t + 8..), a[3] (g + 8, 2t + 8..)
//   b[0] (2t.., g), b[1] (2t + 8.., g)
//   c[0], c[1] (g, 2t..), c[2], c[3] (g + 8, 2t..)
//
// Whether a kernel of products of depth k is compiled for this architecture; the other is empty.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
template <int kDepth>
constexpr bool kHasProducts = kDepth == 8;
#else
template <int kDepth>
constexpr bool kHasProducts = kDepth == 16;
#endif
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, f16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    static_assert(std::is_same_v<T, bf16>);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  __trap();
#endif
}
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {
  static_assert(std::is_same_v<T, f16>);
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

// --- launching -----------------------------------------------------------------------------------
inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "the current device");
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "a device attribute");
  return value;
}
// Of the current device: 75, 80, 90 ...; streaming multiprocessors; bytes that a block may have.
inline int capability() {
  return 10 * device_attribute(cudaDevAttrComputeCapabilityMajor) +
         device_attribute(cudaDevAttrComputeCapabilityMinor);
}
inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
inline int shared_limit() { return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }

// Whether the stream's work goes into a graph.
inline bool is_capturing(Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), "the state of a stream");
  return status != cudaStreamCaptureStatusNone;
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, Stream stream, A... given) {
  std::tuple<P...> arguments(given...);
  const void* entry = reinterpret_cast<const void*>(kernel);
  if (shared > 48 * 1024)  // what a kernel may have unasked
    check_cuda(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared)),
               "shared memory of a kernel");
  std::apply(
      [&](P&... argument) {
        void* at[] = {&argument...};
        check_cuda(cudaLaunchKernel(entry, grid, block, at, shared, stream), "launch of a kernel");
      },
      arguments);
}

}  // namespace bigfast::cuda
#else
#include "simt/device_twin.h"
#endif

namespace bigfast::cuda {

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % 32); }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x / 32); }

// By every lane, and known to every lane; a fixed order.
__device__ __forceinline__ float warp_sum(float v) {
  for (int mask = 16; mask > 0; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
  for (int mask = 16; mask > 0; mask /= 2) v = fmaxf(v, shuffle_xor(v, mask));
  return v;
}

// One call of Philox4x32 with 7 rounds, counter (word0, row, plane, 0), and its eight 16-bit
// numbers: the bits of csrc/cpu/philox.h and bigfast/ops/dropout.py, which state the layouts.
struct Numbers {
  uint32_t words[4];
  __device__ __forceinline__ uint32_t operator[](int k) const {
    return k % 2 == 0 ? words[k / 2] & 0xFFFFu : words[k / 2] >> 16;
  }
};

__device__ __forceinline__ Numbers philox(uint32_t word0, uint32_t row, uint32_t plane,
                                          uint64_t key) {
  uint32_t c0 = word0, c1 = row, c2 = plane, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 7; ++round) {
    const uint32_t high0 = multiply_high(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
    const uint32_t high1 = multiply_high(c2, 0xCD9E8D57u), low1 = c2 * 0xCD9E8D57u;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace bigfast::cuda
