// What the bindings share: checks for memory safety, allocation, pointers. Users' mistakes are
// caught before, in Python; a failed check here is a RuntimeError.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu/types.h"

namespace bigfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptTensor = std::optional<Tensor>;

inline cpu::DType dtype_of(const Tensor& t) {
  const auto dtype = t.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16,
                  "expected float32 or bfloat16");
  return dtype == ScalarType::Float ? cpu::DType::f32 : cpu::DType::bf16;
}

// Asks for huge pages under a large fresh block. Without them its first use takes a fault every
// 4 KB, which costs three times the writing itself (a 94 MB gradient: 29 ms against 10).
inline void advise_huge_pages(void* block, int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = 2 << 20;
  if (bytes < 4 * static_cast<int64_t>(kHuge)) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + kHuge - 1) / kHuge * kHuge;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(block) + bytes) / kHuge * kHuge;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

// An uninitialised contiguous CPU tensor. Through the C shim: the boxed factories of the stable ABI
// cost several microseconds a call.
inline Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes.begin()[i], 1);
  }
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.begin(), strides.data(),
      static_cast<int32_t>(dtype), aoti_torch_device_type_cpu(), 0, &handle));
  Tensor tensor(handle);
  advise_huge_pages(tensor.data_ptr(),
                    tensor.numel() * static_cast<int64_t>(tensor.element_size()));
  return tensor;
}

inline void* data(const Tensor& t) { return t.data_ptr(); }

template <class T = void>
inline const T* data_or_null(const OptTensor& t) {
  return t.has_value() ? static_cast<const T*>(t->data_ptr()) : nullptr;
}

inline void check_contiguous(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.is_cpu() && t.is_contiguous(), name, " must be contiguous and on the CPU");
}

// Rows may lie apart: (rows, N) with unit last stride.
inline void check_rows(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(t.is_cpu() && t.dim() == 2 && (t.stride(1) == 1 || t.numel() == 0), name,
                  " must be (rows, N) with unit last stride, on the CPU");
}

inline void check_int32(const Tensor& t, const char* name) {
  check_contiguous(t, name);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Int, name, " must be int32");
}

// The dropout of `tokens` rows, or none where seed is absent.
inline cpu::Dropout dropout_args(const OptTensor& seed, const OptTensor& rows, int64_t threshold,
                                 int64_t tokens) {
  cpu::Dropout dropout;
  if (!seed.has_value()) return dropout;
  STD_TORCH_CHECK(seed->scalar_type() == ScalarType::Long && seed->numel() == 1,
                  "seed must be one int64");
  STD_TORCH_CHECK(0 <= threshold && threshold <= 65536, "threshold must lie in 0..65536");
  if (rows.has_value()) {
    check_int32(*rows, "rows");
    STD_TORCH_CHECK(rows->numel() == tokens, "rows must have one entry per token");
  }
  dropout.seed = data_or_null<int64_t>(seed);
  dropout.rows = data_or_null<int32_t>(rows);
  dropout.threshold = static_cast<int32_t>(threshold);
  dropout.scale = threshold == 65536 ? 0.0f : 65536.0f / static_cast<float>(65536 - threshold);
  return dropout;
}

}  // namespace bigfast
