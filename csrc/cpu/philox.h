// Random numbers, for dropout masks and stochastic rounding: Philox4x32 with 7 rounds (Salmon et
// al., "Parallel random numbers: as easy as 1, 2, 3", 2011), counter (word0, row, plane, 0), 64-bit
// key. The references, which state the layouts, are bigfast/ops/dropout.py and multi_tensor.py
// there; every implementation has the same numbers.
#pragma once

#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

constexpr int kPhiloxRounds = 7;

// U::W calls, whose first words are word0; the four words of each land in w.
BIGFAST_INLINE void philox(U word0, uint32_t row, uint32_t plane, uint64_t key, U w[4]) {
  U c0 = word0, c1(row), c2(plane), c3(0u);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    U high0, low0, high1, low1;
    multiply(c0, 0xD2511F53u, high0, low0);
    multiply(c2, 0xCD9E8D57u, high1, low1);
    c0 = high1 ^ c1 ^ U(k0);
    c1 = low1;
    c2 = high0 ^ c3 ^ U(k1);
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  w[0] = c0;
  w[1] = c1;
  w[2] = c2;
  w[3] = c3;
}

// Bytes that row_keep_bits writes for n columns.
inline int64_t keep_bytes(int64_t n) { return (n + 8 * U::W - 1) / (8 * U::W) * U::W; }

// Norms, embedding and elementwise ops: bit `col` says whether (row, col) is kept; call col / 8 has
// the numbers of eight neighbouring columns.
inline void row_keep_bits(const Dropout& dropout, int64_t row, int64_t n, uint8_t* bits) {
  if (dropout.threshold >= 65536) {
    std::memset(bits, 0, keep_bytes(n));
    return;
  }
  const uint64_t key = static_cast<uint64_t>(*dropout.seed);
  const uint32_t logical = static_cast<uint32_t>(dropout.rows ? dropout.rows[row] : row);
  for (int64_t call = 0; 8 * call < n; call += U::W) {
    U w[4];
    philox(U(static_cast<uint32_t>(call)) + call_order(), logical, 0, key, w);
    keep_bits(w, dropout.threshold, bits + call);
  }
}

// Bytes that score_keep_bits writes for n columns.
inline int64_t score_keep_bytes(int64_t n) { return (n + 8 * U::W - 1) / (8 * U::W) * U::W; }

// Attention: bit j says whether score (row, column + j) of `plane` is kept; column is a multiple of
// 32, of which four calls have the numbers.
inline void score_keep_bits(const Dropout& dropout, uint32_t plane, int64_t row, int64_t column,
                            int64_t n, uint8_t* bits) {
  if (dropout.threshold >= 65536) {
    std::memset(bits, 0, score_keep_bytes(n));
    return;
  }
  static constexpr uint32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const uint64_t key = static_cast<uint64_t>(*dropout.seed);
  const uint32_t first = static_cast<uint32_t>(column / 8);
  for (int64_t call = 0; 8 * call < n; call += U::W) {
    U w[4];
    philox(U(first + static_cast<uint32_t>(call)) + load(lanes), static_cast<uint32_t>(row), plane,
           key, w);
    keep_bits_scores(w, dropout.threshold, bits + call);
  }
}

// Stochastic rounding: the numbers of elements begin .. begin + 8 U::W - 1 of tensor `plane`. begin
// is a multiple of 8 U::W, so that word0 does not wrap within.
inline void element_numbers(int64_t begin, uint32_t plane, uint64_t key, uint16_t* numbers) {
  const uint64_t first = static_cast<uint64_t>(begin) / 8;
  U w[4];
  philox(U(static_cast<uint32_t>(first)) + call_order(), static_cast<uint32_t>(first >> 32), plane,
         key, w);
  store_in_order(w, numbers);
}

}  // namespace
}  // namespace bigfast::cpu::BIGFAST_ISA
