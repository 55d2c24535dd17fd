// What the optimizer steps share: which piece of which tensor a block has, of which types, and how
// the new parameter is rounded and written. A step itself is a formula for a few neighbouring
// elements.
//
// Where all that a tensor has begins at a multiple of 16 bytes, a thread takes four elements at
// once, and the last up to three of the tensor one by one. Else it takes all one by one, neighbours
// by neighbouring threads: what has been moved (a view into a bucket of gradients) has mostly been
// moved alone, so that no first few elements would bring the others to their 16 bytes.
#pragma once

#include "cuda/device.cuh"
#include "cuda/multi_tensor.h"

namespace bigfast::cuda {

constexpr int kStepThreads = 256;  // of a block
constexpr int kWidth = 4;          // 16 bytes of fp32, 8 of fp16 and bf16
static_assert(kChunk % 8 == 0);    // a call of Philox has eight numbers

// As an argument: how many elements.
template <int N>
struct Lanes {
  static constexpr int count = N;
};

__device__ __forceinline__ double read(const Number& number) {
  if (!number.at) return number.value;
  if (number.type == NumberType::f32) return *static_cast<const float*>(number.at);
  if (number.type == NumberType::f64) return *static_cast<const double*>(number.at);
  return static_cast<double>(*static_cast<const int64_t*>(number.at));
}
__device__ __forceinline__ bool skips(const StepList& list) { return read(list.found_inf) != 0.0; }
__device__ __forceinline__ float gradient_scale(const StepList& list) {
  return list.sign * static_cast<float>(read(list.grad_scale));
}

template <int N, class T>
__device__ __forceinline__ Vec<float, N> load(const T* from) {
  const Vec<T, N> stored = load_vec<N>(from);
  Vec<float, N> v;
#pragma unroll
  for (int k = 0; k < N; ++k) v[k] = to_float(stored[k]);
  return v;
}
template <int N, class T>
__device__ __forceinline__ void store(T* to, const Vec<float, N>& v) {
  Vec<T, N> stored;
#pragma unroll
  for (int k = 0; k < N; ++k) stored[k] = from_float<T>(v[k]);
  store_vec(to, stored);
}

// bits(p) + u with the low 16 bits cut off, u the number of element i + k of tensor `plane`; NaN
// and Inf stay. bigfast/ops/multi_tensor.py, bit for bit. N divides i.
template <int N>
__device__ __forceinline__ Vec<float, N> round_by_chance(Vec<float, N> p, int64_t i, uint32_t plane,
                                                         uint64_t key) {
  const int64_t call = i / 8;
  const Numbers drawn =
      philox(static_cast<uint32_t>(call), static_cast<uint32_t>(call >> 32), plane, key);
  const int first = static_cast<int>(i % 8);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    if (k / N * N != first) continue;  // not p[k - first], which would have p leave its registers
    float& v = p[k % N];
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if ((bits & 0x7F800000u) == 0x7F800000u) continue;
    bits = (bits + drawn[k]) & 0xFFFF0000u;
    memcpy(&v, &bits, 4);
  }
  return p;
}

// This block's part of one tensor. Its weight, of type W, takes the update: the master, or where
// there is none the parameter. Gradients are of type G.
template <class W, class G>
struct Piece {
  W* weight;  // (n), as all that follow
  const G* grad;
  float *exp_avg, *exp_avg_sq;
  void* param;    // where the tensor begins
  int64_t begin;  // elements of it before these
  int n, tensor;
  uint32_t plane;
  const int64_t* seed;
  bool aligned;

  __device__ __forceinline__ explicit Piece(const StepList& list) {
    const Chunk chunk = list.table.chunks[blockIdx.x];
    const StepTensor& t = list.table.tensors[chunk.tensor];
    begin = chunk.place * kChunk;
    n = static_cast<int>(t.size - begin < kChunk ? t.size - begin : kChunk);
    weight = in_global(static_cast<W*>(t.master ? t.master : t.param)) + begin;
    grad = in_global(static_cast<const G*>(t.grad)) + begin;
    exp_avg = in_global(t.exp_avg) + begin;
    exp_avg_sq = in_global(t.exp_avg_sq) + begin;
    param = in_global(t.param);
    tensor = chunk.tensor;
    plane = t.plane;
    seed = list.seed;
    const uintptr_t bits = address(t.param) | address(t.grad) | address(t.exp_avg) |
                           address(t.exp_avg_sq) | address(t.master);
    aligned = bits % 16 == 0;
  }

  // f(i, lanes), for elements i .. i + lanes.count - 1, until all n had their turn.
  template <class F>
  __device__ __forceinline__ void each(F&& f) const {
    const int thread = static_cast<int>(threadIdx.x), whole = aligned ? n / kWidth * kWidth : 0;
#pragma unroll 1
    for (int i = thread * kWidth; i < whole; i += kStepThreads * kWidth) f(i, Lanes<kWidth>{});
#pragma unroll 1
    for (int i = whole + thread; i < n; i += kStepThreads) f(i, Lanes<1>{});
  }

  // p to elements i .. i + N - 1 of the weight, and, rounded, to the parameter, of type P.
  template <class P, int N>
  __device__ __forceinline__ void write(int i, Vec<float, N> p) const {
    P* to = static_cast<P*>(param) + begin + i;
    if constexpr (!std::is_same_v<P, W>) {
      store(weight + i, p);
    } else if (std::is_same_v<P, bf16> && seed) {
      p = round_by_chance(p, begin + i, plane, static_cast<uint64_t>(*seed));
    } else if (static_cast<void*>(to) != weight + i) {  // fp32 with a master
      store(weight + i, p);
    }
    store(to, p);
  }

 private:
  __device__ __forceinline__ static uintptr_t address(const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer);
  }
};

// The sums over the threads of a block, in a fixed order; thread 0 has them.
template <int kSums, class T>
__device__ __forceinline__ void block_sums(T (&v)[kSums]) {
  BIGFAST_SHARED(T, parts, [kSums][kStepThreads / 32]);
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    for (int mask = 16; mask > 0; mask /= 2) v[k] += shuffle_xor(v[k], mask);
    if (lane() == 0) parts[k][warp()] = v[k];
  }
  block_barrier();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int k = 0; k < kSums; ++k)
      for (int other = 1; other < kStepThreads / 32; ++other) v[k] += parts[k][other];
  }
}

// --- launching -----------------------------------------------------------------------------------
// As an argument: a type.
template <class T>
struct Type {};

template <class F>
void with_type(DType dtype, F&& f) {
  if (dtype == DType::f32) return f(Type<float>{});
  if (dtype == DType::bf16) return f(Type<bf16>{});
  f(Type<f16>{});
}

// f(type of the parameters, type of the weights), each as Type.
template <class F>
void with_weight(const StepGroup& group, F&& f) {
  with_type(group.param,
            [&](auto param) { group.master ? f(param, Type<float>{}) : f(param, param); });
}

}  // namespace bigfast::cuda
