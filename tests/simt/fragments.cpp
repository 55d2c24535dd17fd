// How a warp holds matrices, from the PTX ISA ("Matrix Fragments for mma.m16n8k8 / m16n8k16",
// "ldmatrix"): element i of lane l of each operand. test_simt.py holds the ISA's own formulas.
#include "simt/device_twin.h"

namespace bigfast::cuda {

void combine_ldmatrix(void* const* lanes, int count, bool transposed) {
  for (int lane = 0; lane < simt::kLanes; ++lane)
    for (int i = 0; i < count; ++i) {
      uint32_t word = 0;
      for (int half = 0; half < 2; ++half) {
        int row = lane / 4, col = 2 * (lane % 4) + half;
        if (transposed) std::swap(row, col);
        const uint16_t* from = static_cast<MatrixRows*>(lanes[8 * i + row])->row;
        word |= uint32_t{from[col]} << 16 * half;
      }
      static_cast<MatrixRows*>(lanes[lane])->out[i] = word;
    }
}

void combine_mma(void* const* lanes, int k) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < simt::kLanes; ++lane) {
    const Fragments& mine = *static_cast<Fragments*>(lanes[lane]);
    const int group = lane / 4, pair = 2 * (lane % 4);
    for (int i = 0; i < k / 2; ++i)
      a[group + 8 * (i / 2 % 2)][pair + i % 2 + 8 * (i / 4)] = mine.a[i];
    for (int i = 0; i < k / 4; ++i) b[pair + i % 2 + 8 * (i / 2)][group] = mine.b[i];
  }
  for (int lane = 0; lane < simt::kLanes; ++lane) {
    Fragments& mine = *static_cast<Fragments*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), col = 2 * (lane % 4) + i % 2;
      for (int j = 0; j < k; ++j) mine.c[i] += a[row][j] * b[j][col];
    }
  }
}

}  // namespace bigfast::cuda
