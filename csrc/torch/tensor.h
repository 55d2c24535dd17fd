// What the bindings share: checks for memory safety, allocation, pointers. Users' mistakes are
// caught before, in Python; a failed check here is a RuntimeError. A binding may be compiled more
// than once, for the CPU and for CUDA: device.h.
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

#include "args/types.h"

namespace bigfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptTensor = std::optional<Tensor>;

#if defined(BIGFAST_CUDA)
constexpr bool kOnCuda = true;
#else
constexpr bool kOnCuda = false;
#endif
#if defined(BIGFAST_CUDA) && !defined(BIGFAST_EMULATED)
constexpr const char* kDeviceName = "a GPU";
inline bool is_here(const Tensor& t) { return t.is_cuda(); }
#else
constexpr const char* kDeviceName = "the CPU";
inline bool is_here(const Tensor& t) { return t.is_cpu(); }
#endif

inline DType dtype_of(const Tensor& t) {
  const auto dtype = t.scalar_type();
  if (kOnCuda && dtype == ScalarType::Half) return DType::f16;
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16,
                  "expected float32 or bfloat16");
  return dtype == ScalarType::Float ? DType::f32 : DType::bf16;
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

// An uninitialised contiguous tensor. Through the C shim: the boxed factories of the stable ABI
// cost several microseconds a call.
inline Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype, int32_t device_type,
                    int32_t device_index) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes.begin()[i], 1);
  }
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(), strides.data(),
                               static_cast<int32_t>(dtype), device_type, device_index, &handle));
  return Tensor(handle);
}

// On the CPU.
inline Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  Tensor made = empty(sizes, dtype, aoti_torch_device_type_cpu(), 0);
  prefer_huge_pages(made.data_ptr(), made.numel() * static_cast<int64_t>(made.element_size()));
  return made;
}

// On the device of `beside`.
inline Tensor empty(std::initializer_list<int64_t> sizes, ScalarType dtype, const Tensor& beside) {
  if (beside.is_cpu()) return empty(sizes, dtype);
  return empty(sizes, dtype, aoti_torch_device_type_cuda(), beside.get_device_index());
}

inline void* data(const Tensor& t) { return t.data_ptr(); }

template <class T = void>
inline const T* data_or_null(const OptTensor& t) {
  return t.has_value() ? static_cast<const T*>(t->data_ptr()) : nullptr;
}

inline void check_contiguous(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(is_here(t) && t.is_contiguous(), name, " must be contiguous and on ",
                  kDeviceName);
}

// Rows may lie apart: (rows, N) with unit last stride.
inline void check_rows(const Tensor& t, const char* name) {
  STD_TORCH_CHECK(is_here(t) && t.dim() == 2 && (t.stride(1) == 1 || t.numel() == 0), name,
                  " must be (rows, N) with unit last stride, on ", kDeviceName);
}

inline void check_int32(const Tensor& t, const char* name) {
  check_contiguous(t, name);
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Int, name, " must be int32");
}

// The dropout of `tokens` rows, or none where seed is absent.
inline Dropout dropout_args(const OptTensor& seed, const OptTensor& rows, int64_t threshold,
                            int64_t tokens) {
  Dropout dropout;
  if (!seed.has_value()) return dropout;
  STD_TORCH_CHECK(is_here(*seed) && seed->scalar_type() == ScalarType::Long && seed->numel() == 1,
                  "seed must be one int64, on ", kDeviceName);
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
