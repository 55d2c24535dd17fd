// The emulated matrix units against the fragment layouts of the PTX ISA, written here as the ISA
// states them: formulas in groupID = lane >> 2, threadID_in_group = lane % 4 and the index i of an
// element among those of a lane. Each element of each operand carries a number of its own.
#include <cmath>
#include <cstdio>
#include <vector>

#include "cuda/device.cuh"

namespace bigfast::cuda {
namespace {

int failures = 0;
void expect(bool right, const char* what, int lane, int i) {
  if (!right) std::printf("FAIL %s, lane %d, element %d\n", what, lane, i), ++failures;
}

struct At {
  int row, col;
};
// "Matrix Fragments for mma.m16n8k16 with floating point type", .f16 and .bf16; the first four
// elements are those of m16n8k8.
At of_a(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {(0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8,
          i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8};
}
At of_b(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8, group};
}
At of_c(int lane, int i) {
  const int group = lane >> 2, in_group = lane % 4;
  return {i < 2 ? group : group + 8, in_group * 2 + (i & 1)};
}

float a_at(int row, int col) { return static_cast<float>((row * 5 + col * 3) % 17 - 8); }
float b_at(int row, int col) { return static_cast<float>((row * 7 + col * 11) % 13 - 6); }
float c_at(int row, int col) { return static_cast<float>(row * 8 + col); }

template <class T, int K>
__global__ void multiply(float* c_out) {
  const int l = static_cast<int>(threadIdx.x);
  uint32_t a[K / 4], b[K / 8];
  float c[4];
  for (int i = 0; i < K / 2; i += 2) {
    const At low = of_a(l, i), high = of_a(l, i + 1);
    a[i / 2] = pack<T>(a_at(low.row, low.col), a_at(high.row, high.col));
  }
  for (int i = 0; i < K / 4; i += 2) {
    const At low = of_b(l, i), high = of_b(l, i + 1);
    b[i / 2] = pack<T>(b_at(low.row, low.col), b_at(high.row, high.col));
  }
  for (int i = 0; i < 4; ++i) c[i] = c_at(of_c(l, i).row, of_c(l, i).col);
  mma<T>(c, a, b);
  for (int i = 0; i < 4; ++i) c_out[4 * l + i] = c[i];
}

template <class T, int K>
void check_mma(const char* name) {
  std::vector<float> got(128);
  launch(multiply<T, K>, dim3(1), dim3(32), 0, nullptr, got.data());
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const At at = of_c(lane, i);
      float want = c_at(at.row, at.col);
      for (int k = 0; k < K; ++k) want += a_at(at.row, k) * b_at(k, at.col);
      expect(got[4 * lane + i] == want, name, lane, i);
    }
}

// "Warp-level matrix load instruction: ldmatrix": row of the address of lane 8 i + j is row j of
// matrix i; lane l then holds elements 2 (l % 4) + {0, 1} of row l / 4, or, .trans, of column l
// / 4.
template <int kCount, bool kTransposed>
__global__ void load(uint32_t* out) {
  uint16_t* matrices = dynamic_shared<uint16_t>();
  const int l = static_cast<int>(threadIdx.x);
  for (int i = l; i < 64 * kCount; i += 32) matrices[i] = static_cast<uint16_t>(i);
  warp_barrier();
  uint32_t words[kCount];
  const uint16_t* row = matrices + 8 * (l % (8 * kCount));
  if constexpr (kTransposed) {
    ldmatrix_trans(words, row);
  } else {
    ldmatrix(words, row);
  }
  for (int i = 0; i < kCount; ++i) out[kCount * l + i] = words[i];
}

template <int kCount, bool kTransposed>
void check_ldmatrix(const char* name) {
  std::vector<uint32_t> got(32 * kCount);
  launch(load<kCount, kTransposed>, dim3(1), dim3(32), 128 * kCount, nullptr, got.data());
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 2 * kCount; ++i) {
      const int one = lane / 4, other = 2 * (lane % 4) + i % 2;
      const int want = 64 * (i / 2) + (kTransposed ? 8 * other + one : 8 * one + other);
      expect((got[kCount * lane + i / 2] >> 16 * (i % 2) & 0xFFFF) == uint32_t(want), name, lane,
             i);
    }
}

// All 16-bit patterns survive; what lies between two goes to the even one.
template <class T>
void check_numbers(const char* name) {
  for (int bits = 0; bits < 0x7F80 - (sizeof(T) == 2 && name[0] == 'f' ? 0x380 : 0); ++bits) {
    const T v{static_cast<uint16_t>(bits)}, next{static_cast<uint16_t>(bits + 1)};
    expect(from_float<T>(to_float(v)).bits == bits, name, bits, 0);
    expect(from_float<T>(-to_float(v)).bits == (bits | 0x8000), name, bits, 1);
    if (std::isinf(to_float(next))) continue;
    const float middle = to_float(v) / 2 + to_float(next) / 2;
    const int even = bits % 2 ? bits + 1 : bits;
    expect(from_float<T>(middle).bits == even, name, bits, 2);
    expect(from_float<T>(std::nextafter(middle, 0.0f)).bits == bits, name, bits, 3);
    expect(from_float<T>(std::nextafter(middle, INFINITY)).bits == bits + 1, name, bits, 4);
  }
  expect(std::isnan(to_float(from_float<T>(NAN))), name, 0, 5);
  expect(std::isinf(to_float(from_float<T>(INFINITY))), name, 0, 6);
}

}  // namespace
}  // namespace bigfast::cuda

int main() {
  using namespace bigfast::cuda;
  check_mma<f16, 16>("mma m16n8k16 f16");
  check_mma<bf16, 16>("mma m16n8k16 bf16");
  check_mma<f16, 8>("mma m16n8k8 f16");
  check_ldmatrix<1, false>("ldmatrix x1");
  check_ldmatrix<2, false>("ldmatrix x2");
  check_ldmatrix<4, false>("ldmatrix x4");
  check_ldmatrix<1, true>("ldmatrix x1 trans");
  check_ldmatrix<2, true>("ldmatrix x2 trans");
  check_ldmatrix<4, true>("ldmatrix x4 trans");
  check_numbers<f16>("f16");
  check_numbers<bf16>("bf16");
  std::puts(failures ? "fragments differ" : "right");
  return failures != 0;
}
