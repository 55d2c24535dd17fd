// Kernels with one mistake each, which the emulator must find, and the same without it: planted
// NAME runs the right one, planted NAME wrong the other. Prints "right", or what was found.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/device.cuh"

namespace bigfast::cuda {
namespace {

constexpr int kThreads = 64;
using Floats = std::vector<float>;

// Every thread adds its right neighbour's number to its own.
template <bool kWrong>
__global__ void missing_barrier(const float* x, float* y) {
  BIGFAST_SHARED(float, row, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  row[i] = x[i];
  if constexpr (!kWrong) block_barrier();
  y[i] = x[i] + row[(i + 1) % kThreads];
}

// As above, within warps: a shuffle orders nothing.
template <bool kWrong>
__global__ void missing_warp_barrier(const float* x, float* y) {
  BIGFAST_SHARED(float, row, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  row[i] = x[i];
  if constexpr (!kWrong) warp_barrier();
  const float own = shuffle(x[i], lane());
  y[i] = own + row[i / 32 * 32 + (i + 1) % 32];
}

// Writes a second row while slower warps still read the first.
template <bool kWrong>
__global__ void missing_second_barrier(const float* x, float* y) {
  float* row = dynamic_shared<float>();
  const int i = static_cast<int>(threadIdx.x);
  float sum = 0;
  for (int step = 0; step < 2; ++step) {
    row[i] = x[i] * static_cast<float>(step);
    block_barrier();
    sum += row[(i + 32) % kThreads];
    if constexpr (!kWrong) block_barrier();
  }
  y[i] = sum;
}

template <bool kWrong>
__global__ void off_by_one_in_shared(const float* x, float* y) {
  BIGFAST_SHARED(float, row, [kThreads]);
  const int i = static_cast<int>(threadIdx.x);
  row[i + kWrong] = x[i];
  block_barrier();
  y[i] = row[i];
}

template <bool kWrong>
__global__ void off_by_one_in_global(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = x[i + kWrong];
}

template <bool kWrong>
__global__ void misaligned_load(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < kThreads / 4 - 1) store_vec(y + 4 * i, load_vec<4>(x + 4 * i + kWrong));
}

template <bool kWrong>
__global__ void divergent_barrier(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = x[i];
  if (kWrong && i == 33) return;
  block_barrier();
}

template <bool kWrong>
__global__ void divergent_shuffle(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = x[i];
  if (!kWrong || i != 7) y[i] += shuffle_xor(x[i], 1);
}

template <bool kWrong>
__global__ void missing_wait(const float* x, float* y) {
  float* row = dynamic_shared<float>();
  const int i = static_cast<int>(threadIdx.x);
  if (i < kThreads / 4) copy_async(row + 4 * i, x + 4 * i);
  commit_async();
  wait_async<kWrong>();
  block_barrier();
  y[i] = row[kThreads - 1 - i];
}

using Kernel = void (*)(const float*, float*);
#define KERNEL(name)                   \
  {                                    \
    #name, { name<false>, name<true> } \
  }
const std::map<std::string, std::vector<Kernel>> kKernels = {
    KERNEL(missing_barrier),      KERNEL(missing_warp_barrier), KERNEL(missing_second_barrier),
    KERNEL(off_by_one_in_shared), KERNEL(off_by_one_in_global), KERNEL(misaligned_load),
    KERNEL(divergent_barrier),    KERNEL(divergent_shuffle),    KERNEL(missing_wait),
};

// The wrong results of races and of missing waits are NaN, or other than those of the right kernel.
Floats results(Kernel kernel) {
  Floats x(kThreads), y(kThreads);
  for (int i = 0; i < kThreads; ++i) x[i] = static_cast<float>(i + 1);
  launch(kernel, dim3(2), dim3(kThreads), kThreads * sizeof(float), nullptr, x.data(), y.data());
  return y;
}

}  // namespace
}  // namespace bigfast::cuda

int main(int count, char** words) {
  using namespace bigfast::cuda;
  const auto& kernels = kKernels.at(words[1]);
  try {
    const Floats y = results(kernels[count > 2]), want = results(kernels[0]);
    const bool same = std::memcmp(y.data(), want.data(), y.size() * sizeof(float)) == 0;
    std::puts(same ? "right" : "wrong results");
    return !same;
  } catch (const std::runtime_error& error) {
    std::puts(error.what());
    return 1;
  }
}
