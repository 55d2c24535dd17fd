// Numbers as the tensors of a dtype hold them, on heap memory of just the right size.
#pragma once

#include <cstring>
#include <vector>

#include "args/types.h"
#include "native/truth.h"
#include "simt/numbers.h"

namespace {

using bigfast::DType;
namespace cuda = bigfast::cuda;

// The bytes of v in a dtype; v becomes what they hold.
std::vector<char> stored(Floats& v, DType dtype) {
  std::vector<char> bytes(v.size() * (dtype == DType::f32 ? 4 : 2));
  for (size_t i = 0; i < v.size(); ++i) {
    if (dtype == DType::f32) {
      std::memcpy(&bytes[4 * i], &v[i], 4);
    } else {
      const uint16_t bits = dtype == DType::bf16 ? cuda::bf16_bits(v[i]) : cuda::f16_bits(v[i]);
      std::memcpy(&bytes[2 * i], &bits, 2);
      v[i] =
          dtype == DType::bf16 ? cuda::to_float(cuda::bf16{bits}) : cuda::to_float(cuda::f16{bits});
    }
  }
  return bytes;
}

}  // namespace
