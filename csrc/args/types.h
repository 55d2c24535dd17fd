// What kernel arguments are made of, on every device. No torch here, and no device.
#pragma once

#include <cstdint>

namespace bigfast {

enum class DType : int { f32, bf16, f16 };  // f16: on CUDA alone

// Dropout as docs/architecture.md defines it: element (row, col) is kept where its 16-bit Philox
// number is >= threshold, and scaled. `seed` is null when nothing is dropped.
struct Dropout {
  const int64_t* seed = nullptr;
  const int32_t* rows = nullptr;  // logical row of each row; null: row i is i
  int32_t threshold = 0;          // 65536 drops all
  float scale = 1.0f;
};

}  // namespace bigfast
