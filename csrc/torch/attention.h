// What the bindings of attention and attention_decode share: checks and arguments.
#pragma once

#include "torch/device.h"

#if defined(BIGFAST_CUDA)
#include "cuda/attention.h"
#else
#include "cpu/attention.h"
#endif

#include <algorithm>
#include <cmath>

namespace bigfast {

// Values are checked here for memory's sake; the public function has named them before. On a GPU
// nobody looks at them: that would wait for it.
inline void check_offsets(const OptTensor& offsets, const char* name, int64_t batch,
                          int64_t tokens) {
  if (!offsets.has_value()) return;
  check_int32(*offsets, name);
  STD_TORCH_CHECK(offsets->numel() == batch + 1, name, " must have ", batch + 1, " entries");
  if (kOnCuda) return;
  const int32_t* at = data_or_null<int32_t>(offsets);
  STD_TORCH_CHECK(at[0] == 0, name, " must start with 0, got ", at[0]);
  for (int64_t b = 0; b < batch; ++b)
    STD_TORCH_CHECK(at[b] <= at[b + 1], name, " must not fall, got ", at[b], ", ", at[b + 1],
                    " at ", b);
  STD_TORCH_CHECK(at[batch] <= tokens, name, " must end within ", tokens, " tokens, got ",
                  at[batch]);
}

// The rows of (B, S, H, D) or (T, H, D).
template <class Void>
AttentionRows<Void> rows_of(const Tensor& t, const char* name) {
  const int64_t last = t.dim() - 1;
  STD_TORCH_CHECK(is_here(t) && (t.stride(last) == 1 || t.numel() == 0), name, " must be on ",
                  kDeviceName, ", with a unit last stride");
  return {data(t), last == 3 ? t.stride(0) : 0, t.stride(last - 2), t.stride(last - 1)};
}

inline void check_like(const Tensor& t, const Tensor& other, const char* names) {
  bool same = t.dim() == other.dim() && t.scalar_type() == other.scalar_type();
  for (int64_t i = 0; same && i < t.dim(); ++i) same = t.size(i) == other.size(i);
  STD_TORCH_CHECK(same, names, " must have equal shapes and dtypes");
}

inline AttentionShape shape_of(const Tensor& q, const Tensor& k, const Tensor& v,
                               const OptTensor& cu_seqlens, const OptTensor& cu_seqlens_k,
                               const OptTensor& seqused_k, const OptTensor& alibi_slopes,
                               const OptTensor& seed, int64_t threshold, int64_t window_left,
                               int64_t window_right, double scale) {
  const bool packed = cu_seqlens.has_value();
  const int64_t last = packed ? 2 : 3;
  STD_TORCH_CHECK(q.dim() == last + 1 && k.dim() == last + 1, "q and k must have ", last + 1,
                  " dims");
  check_like(k, v, "k and v");
  STD_TORCH_CHECK(q.size(last) == k.size(last) && q.scalar_type() == k.scalar_type() &&
                      (packed || q.size(0) == k.size(0)),
                  "q and k must fit each other");
  AttentionShape a{};
  a.batch = packed ? cu_seqlens->numel() - 1 : q.size(0);
  a.heads = q.size(last - 1);
  a.kv_heads = k.size(last - 1);
  a.dim = q.size(last);
  a.queries = q.size(last - 2);
  a.keys = k.size(last - 2);
  STD_TORCH_CHECK(
      a.batch >= 0 && a.dim > 0 && a.kv_heads > 0 && a.heads > 0 && a.heads % a.kv_heads == 0,
      "k's heads must divide q's");
  STD_TORCH_CHECK(!kOnCuda || (a.queries < 1 << 30 && a.keys < 1 << 30), "too many tokens");
  check_offsets(cu_seqlens, "cu_seqlens", a.batch, a.queries);
  STD_TORCH_CHECK(packed || !cu_seqlens_k.has_value(), "cu_seqlens_k needs cu_seqlens");
  if (cu_seqlens_k.has_value())
    check_offsets(cu_seqlens_k, "cu_seqlens_k", a.batch, a.keys);
  else
    check_offsets(cu_seqlens, "cu_seqlens", a.batch, a.keys);
  a.cu_seqlens = data_or_null<int32_t>(cu_seqlens);
  a.cu_seqlens_k = data_or_null<int32_t>(cu_seqlens_k);
  a.seqused_k = data_or_null<int32_t>(seqused_k);
  if (seqused_k.has_value()) {
    check_int32(*seqused_k, "seqused_k");
    STD_TORCH_CHECK(seqused_k->numel() == a.batch, "seqused_k must have ", a.batch, " entries");
    const int32_t* cu_k = a.cu_seqlens_k ? a.cu_seqlens_k : a.cu_seqlens;
    for (int64_t b = 0; b < a.batch && !kOnCuda; ++b) {
      const int64_t length = cu_k ? cu_k[b + 1] - cu_k[b] : a.keys;
      STD_TORCH_CHECK(0 <= a.seqused_k[b] && a.seqused_k[b] <= length, "seqused_k must lie in 0..",
                      length, " at ", b, ", got ", a.seqused_k[b]);
    }
  }
  STD_TORCH_CHECK(scale > 0 && std::isfinite(scale), "scale must be > 0, got ", scale);
  if (alibi_slopes.has_value()) {
    check_contiguous(*alibi_slopes, "alibi_slopes");
    const int64_t slopes = alibi_slopes->numel();
    STD_TORCH_CHECK(alibi_slopes->scalar_type() == ScalarType::Float &&
                        slopes == (alibi_slopes->dim() == 2 ? a.batch : 1) * a.heads,
                    "alibi_slopes must be fp32, one per head, or per sequence and head");
    a.alibi_slopes = data_or_null<float>(alibi_slopes);
    a.alibi_batch = alibi_slopes->dim() == 2 ? a.heads : 0;
  }
  constexpr int64_t kAll = int64_t{1} << 40;
  a.left = window_left < 0 ? kAll : std::min(window_left, kAll);
  a.right = window_right < 0 ? kAll : std::min(window_right, kAll);
  a.scale = static_cast<float>(scale);
  a.dtype = dtype_of(q);
  a.dropout = dropout_args(seed, {}, threshold, 0);
  return a;
}

// A contiguous result like t.
inline Tensor contiguous_like(const Tensor& t) {
  if (t.dim() == 3) return empty({t.size(0), t.size(1), t.size(2)}, t.scalar_type(), t);
  return empty({t.size(0), t.size(1), t.size(2), t.size(3)}, t.scalar_type(), t);
}

}  // namespace bigfast
