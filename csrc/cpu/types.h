// What kernel arguments are made of.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace bigfast::cpu {

struct bf16 {
  uint16_t bits;
};

enum class DType : int { f32, bf16 };

// Dropout as docs/architecture.md defines it: element (row, col) is kept where its 16-bit Philox
// number is >= threshold, and scaled. `seed` is null when nothing is dropped.
struct Dropout {
  const int64_t* seed = nullptr;
  const int32_t* rows = nullptr;  // logical row of each row; null: row i is i
  int32_t threshold = 0;          // 65536 drops all
  float scale = 1.0f;
};

// Calls f with a value of the C++ type that dtype names: dispatch(x, [&](auto tag) {...}).
template <class F>
inline void dispatch(DType dtype, F&& f) {
  dtype == DType::f32 ? f(float{}) : f(bf16{});
}

// Uninitialised 64-byte aligned scratch of one task.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : data_(static_cast<T*>(std::aligned_alloc(64, (size * sizeof(T) + 127) / 64 * 64))) {}
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

}  // namespace bigfast::cpu
