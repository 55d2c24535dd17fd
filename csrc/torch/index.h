// Indices from outside: checked here, every one, before a kernel follows them.
#pragma once

#include "cpu/index.h"
#include "torch/tensor.h"

namespace bigfast {

// `ids`, all in 0..size-1, or token % period where absent. Python finds and names a bad one.
inline cpu::Index checked_index(const OptTensor& ids, const char* name, int64_t tokens,
                                int64_t period, int64_t size) {
  cpu::Index index{nullptr, false, period};
  if (!ids.has_value()) {
    STD_TORCH_CHECK(tokens == 0 || period <= size, name, " are missing, and 0..", period - 1,
                    " are not in 0..", size - 1);
    return index;
  }
  check_contiguous(*ids, name);
  index.wide = ids->scalar_type() == ScalarType::Long;
  STD_TORCH_CHECK(index.wide || ids->scalar_type() == ScalarType::Int, name,
                  " must be int32 or int64");
  STD_TORCH_CHECK(ids->numel() == tokens, name, " must have one entry per token");
  index.ids = data(*ids);
  for (int64_t t = 0; t < tokens; ++t)
    STD_TORCH_CHECK(0 <= index[t] && index[t] < size, name, ": ", index[t], " at ", t,
                    " is not in 0..", size - 1);
  return index;
}

}  // namespace bigfast
