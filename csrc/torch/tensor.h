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

// malloc hands out blocks past 32 MB as fresh memory every time, and that arrives page by page, at
// a fault each, which costs more than writing it. Where the system leaves the choice (Linux,
// "madvise"), ask for pages of 2 MB.
inline void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] int64_t bytes) {
#ifdef __linux__
  constexpr int64_t huge = int64_t{1} << 21;
  if (bytes < 16 * huge) return;
  const auto begin = (reinterpret_cast<int64_t>(memory) + huge - 1) / huge * huge;
  const auto end = (reinterpret_cast<int64_t>(memory) + bytes) / huge * huge;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a hint: it may fail
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
  Tensor made(handle);
  prefer_huge_pages(made.data_ptr(), made.numel() * static_cast<int64_t>(made.element_size()));
  return made;
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
