// Counter-based random numbers and a stateless permutation; bigfast/data/reference.py is the same
// in NumPy.
//
// Stream: bits(i) = mix(key + (i + 1) * golden), SplitMix64 (Steele, Lea, Flood 2014) read at any
// index. Streams form a tree, at(i) being the child keyed by bits(i), so every number is a pure
// function of (seed, path, index): nothing is carried from one batch to the next.
#pragma once

#include <array>
#include <cstdint>

namespace bigfast::data {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;

inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

struct Stream {
  uint64_t key;

  uint64_t bits(uint64_t i) const { return mix(key + (i + 1) * kGolden); }
  Stream at(uint64_t i) const { return {bits(i)}; }
  // Uniform below n, 0 < n < 2^32; the bias is under n / 2^32.
  uint64_t below(uint64_t i, uint64_t n) const { return ((bits(i) >> 32) * n) >> 32; }
};

// First step of every path below the seed: one subtree per use, so that uses are independent.
enum Use : uint64_t { kOrder = 0, kMask = 1, kPair = 2 };

// p in [0, 1] as a threshold for 32 random bits: P(word < threshold(p)) = p to 2^-33.
inline uint64_t threshold(double p) { return static_cast<uint64_t>(p * 4294967296.0 + 0.5); }

// A permutation of 0..n-1: a Feistel network on the smallest even number of bits that covers n,
// walked until it lands below n (at most 4 tries on average; a bijection because the network is).
class Permutation {
 public:
  static constexpr int kRounds = 6;

  Permutation(uint64_t n, Stream stream) : n_(n) {
    while (half_ < 32 && (uint64_t{1} << (2 * half_)) < n) ++half_;
    for (int r = 0; r < kRounds; ++r) rounds_[r] = stream.at(r);
  }

  uint64_t operator()(uint64_t index) const {
    do index = feistel(index);
    while (index >= n_);
    return index;
  }

 private:
  uint64_t feistel(uint64_t x) const {
    const uint64_t mask = (uint64_t{1} << half_) - 1;
    uint64_t left = x >> half_, right = x & mask;
    for (const Stream& round : rounds_) {
      const uint64_t next = left ^ (round.bits(right) >> (64 - half_));
      left = right;
      right = next;
    }
    return left << half_ | right;
  }

  uint64_t n_;
  int half_ = 1;
  std::array<Stream, kRounds> rounds_;
};

// Samples of an endless stream: sample g belongs to epoch g / n, and each epoch is a permutation of
// 0..n-1. A batch may straddle two epochs; none is dropped, and any n serves any batch size.
class Order {
 public:
  Order(uint64_t n, uint64_t seed) : n_(n), root_(Stream{seed}.at(kOrder)), shuffle_(n, epoch(0)) {}

  uint64_t operator()(uint64_t sample) {
    if (sample / n_ != current_) {
      current_ = sample / n_;
      shuffle_ = Permutation(n_, epoch(current_));
    }
    return shuffle_(sample % n_);
  }
  // The epoch's stream: children 0..kRounds-1 are the permutation's, kRounds is the phase of the
  // cuts.
  Stream epoch(uint64_t e) const { return root_.at(e); }

 private:
  uint64_t n_;
  Stream root_;
  Permutation shuffle_;
  uint64_t current_ = 0;
};

}  // namespace bigfast::data
