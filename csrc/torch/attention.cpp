// Binding of attention: checks, allocates, calls csrc/cpu/attention_{fwd,bwd}.cpp.
#include "cpu/attention.h"

#include <cmath>

#include "torch/tensor.h"

namespace bigfast {
namespace {

// Values are checked here for memory's sake; the public function has named them before.
void check_offsets(const OptTensor& offsets, const char* name, int64_t batch, int64_t tokens) {
  if (!offsets.has_value()) return;
  check_int32(*offsets, name);
  STD_TORCH_CHECK(offsets->numel() == batch + 1, name, " must have ", batch + 1, " entries");
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
cpu::AttentionRows<Void> rows_of(const Tensor& t, const char* name) {
  const int64_t last = t.dim() - 1;
  STD_TORCH_CHECK(t.is_cpu() && (t.stride(last) == 1 || t.numel() == 0), name,
                  " must be on the CPU, with a unit last stride");
  return {data(t), last == 3 ? t.stride(0) : 0, t.stride(last - 2), t.stride(last - 1)};
}

void check_like(const Tensor& t, const Tensor& other, const char* names) {
  bool same = t.dim() == other.dim() && t.scalar_type() == other.scalar_type();
  for (int64_t i = 0; same && i < t.dim(); ++i) same = t.size(i) == other.size(i);
  STD_TORCH_CHECK(same, names, " must have equal shapes and dtypes");
}

cpu::AttentionShape shape_of(const Tensor& q, const Tensor& k, const Tensor& v,
                             const OptTensor& cu_seqlens, const OptTensor& cu_seqlens_k,
                             const OptTensor& seqused_k, const OptTensor& seed, int64_t threshold,
                             bool causal, double scale) {
  const bool packed = cu_seqlens.has_value();
  const int64_t last = packed ? 2 : 3;
  STD_TORCH_CHECK(q.dim() == last + 1 && k.dim() == last + 1, "q and k must have ", last + 1,
                  " dims");
  check_like(k, v, "k and v");
  STD_TORCH_CHECK(q.size(last) == k.size(last) && q.scalar_type() == k.scalar_type() &&
                      (packed || q.size(0) == k.size(0)),
                  "q and k must fit each other");
  cpu::AttentionShape a{};
  a.batch = packed ? cu_seqlens->numel() - 1 : q.size(0);
  a.heads = q.size(last - 1);
  a.kv_heads = k.size(last - 1);
  a.dim = q.size(last);
  a.queries = q.size(last - 2);
  a.keys = k.size(last - 2);
  STD_TORCH_CHECK(
      a.batch >= 0 && a.dim > 0 && a.kv_heads > 0 && a.heads > 0 && a.heads % a.kv_heads == 0,
      "k's heads must divide q's");
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
    for (int64_t b = 0; b < a.batch; ++b) {
      const int64_t length = cu_k ? cu_k[b + 1] - cu_k[b] : a.keys;
      STD_TORCH_CHECK(0 <= a.seqused_k[b] && a.seqused_k[b] <= length, "seqused_k must lie in 0..",
                      length, " at ", b, ", got ", a.seqused_k[b]);
    }
  }
  STD_TORCH_CHECK(scale > 0 && std::isfinite(scale), "scale must be > 0, got ", scale);
  a.causal = causal;
  a.scale = static_cast<float>(scale);
  a.dtype = dtype_of(q);
  a.dropout = dropout_args(seed, {}, threshold, 0);
  return a;
}

// A contiguous result like t.
Tensor contiguous_like(const Tensor& t) {
  if (t.dim() == 3) return empty({t.size(0), t.size(1), t.size(2)}, t.scalar_type());
  return empty({t.size(0), t.size(1), t.size(2), t.size(3)}, t.scalar_type());
}

std::tuple<Tensor, Tensor> attention_fwd(const Tensor q, const Tensor k, const Tensor v,
                                         const OptTensor cu_seqlens, const OptTensor cu_seqlens_k,
                                         const OptTensor seqused_k, const OptTensor seed,
                                         int64_t threshold, bool causal, double scale) {
  cpu::AttentionForward args{};
  args.shape =
      shape_of(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, seed, threshold, causal, scale);
  Tensor o = contiguous_like(q);
  Tensor lse = empty({args.shape.heads, args.shape.tokens()}, ScalarType::Float);
  args.q = rows_of<const void>(q, "q");
  args.k = rows_of<const void>(k, "k");
  args.v = rows_of<const void>(v, "v");
  args.o = rows_of<void>(o, "o");
  args.lse = static_cast<float*>(data(lse));
  cpu::attention_fwd(args);
  return {o, lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_bwd(const Tensor grad_o, const Tensor q,
                                                 const Tensor k, const Tensor v, const Tensor o,
                                                 const Tensor lse, const OptTensor cu_seqlens,
                                                 const OptTensor cu_seqlens_k,
                                                 const OptTensor seqused_k, const OptTensor seed,
                                                 int64_t threshold, bool causal, double scale) {
  cpu::AttentionBackward args{};
  args.shape =
      shape_of(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, seed, threshold, causal, scale);
  check_like(o, q, "o and q");
  check_like(grad_o, q, "grad_o and q");
  check_contiguous(lse, "lse");
  STD_TORCH_CHECK(lse.scalar_type() == ScalarType::Float &&
                      lse.numel() == args.shape.heads * args.shape.tokens(),
                  "lse must be fp32, one per row and head");
  Tensor dq = contiguous_like(q), dk = contiguous_like(k), dv = contiguous_like(v);
  args.q = rows_of<const void>(q, "q");
  args.k = rows_of<const void>(k, "k");
  args.v = rows_of<const void>(v, "v");
  args.o = rows_of<const void>(o, "o");
  args.grad_o = rows_of<const void>(grad_o, "grad_o");
  args.lse = static_cast<const float*>(data(lse));
  args.dq = rows_of<void>(dq, "dq");
  args.dk = rows_of<void>(dk, "dk");
  args.dv = rows_of<void>(dv, "dv");
  cpu::attention_bwd(args);
  return {dq, dk, dv};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("attention_fwd", TORCH_BOX(&attention_fwd));
  m.impl("attention_bwd", TORCH_BOX(&attention_bwd));
}

}  // namespace bigfast
