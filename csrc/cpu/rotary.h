// Arguments of rotary.
#pragma once

#include "cpu/index.h"
#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

// q or k: (tokens, heads, head_dim), unit stride along head_dim.
struct RotaryHeads {
  const void* from;
  int64_t token_stride, head_stride;  // of `from`, in elements
  void* to;                           // contiguous
  int64_t heads;
};

struct Rotary {
  RotaryHeads q, k;
  const float* cos;  // (positions, pairs)
  const float* sin;  // (positions, pairs)
  Index positions;   // of each token, checked
  int64_t tokens, head_dim, pairs;
  DType dtype;
  bool interleaved;
  bool inverse;  // turn by the negative angle: backward
};

BIGFAST_KERNEL(rotary, Rotary)

}  // namespace bigfast::cpu
