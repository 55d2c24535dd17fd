// What the CPU kernels are made of.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "args/types.h"

namespace bigfast::cpu {

struct bf16 {
  uint16_t bits;
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
  Scratch(Scratch&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

}  // namespace bigfast::cpu
