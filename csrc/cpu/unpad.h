// Arguments of unpad and pad. Rows are bytes to them, so every dtype is served.
#pragma once

#include "cpu/isa.h"

namespace bigfast::cpu {

struct RowCopy {
  const char* from;     // unpad: (padded rows); pad: (tokens); rows are from_stride bytes apart
  char* to;             // unpad: (tokens); pad: (padded rows); contiguous
  const int32_t* rows;  // (tokens): the padded row of each token, checked
  int64_t tokens, padded, row_bytes, from_stride;
};

BIGFAST_KERNEL(unpad, RowCopy)
BIGFAST_KERNEL(pad, RowCopy)

}  // namespace bigfast::cpu
