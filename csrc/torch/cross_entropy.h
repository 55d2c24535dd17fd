// What the bindings of cross_entropy and linear_cross_entropy share.
#pragma once

#include "cpu/cross_entropy.h"
#include "torch/tensor.h"

namespace bigfast {

inline const int64_t* labels_of(const Tensor& target, int64_t tokens) {
  check_contiguous(target, "target");
  STD_TORCH_CHECK(target.scalar_type() == ScalarType::Long && target.numel() == tokens,
                  "target must be int64 with one label per row");
  return static_cast<const int64_t*>(data(target));
}

// Every label is a class or `ignored`; returns how many are classes. Kernels rely on it.
inline int64_t count_labels(const int64_t* labels, int64_t tokens, int64_t classes,
                            std::optional<int64_t> ignored) {
  int64_t count = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    if (ignored.has_value() && labels[t] == *ignored) continue;
    STD_TORCH_CHECK(0 <= labels[t] && labels[t] < classes, "target is ", labels[t], " in row ", t,
                    ", outside 0..", classes - 1);
    ++count;
  }
  return count;
}

inline float* floats_of(const Tensor& t, int64_t size, const char* name) {
  check_contiguous(t, name);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float && t.numel() == size, name,
                  " must be float32 of the right size");
  return static_cast<float*>(data(t));
}

// One number for all rows, or one per row: the pointer, and the step from row to row.
inline std::tuple<const float*, int64_t> per_row(const Tensor& t, int64_t tokens,
                                                 const char* name) {
  const bool one = t.numel() == 1;
  return {floats_of(t, one ? 1 : tokens, name), one ? 0 : 1};
}

}  // namespace bigfast
