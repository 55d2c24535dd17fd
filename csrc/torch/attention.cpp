// Binding of attention: checks, allocates, calls the kernels of the device (torch/device.h).
#include "torch/attention.h"

namespace bigfast {
namespace {

std::tuple<Tensor, Tensor> attention_fwd(const Tensor q, const Tensor k, const Tensor v,
                                         const OptTensor cu_seqlens, const OptTensor cu_seqlens_k,
                                         const OptTensor seqused_k, const OptTensor alibi_slopes,
                                         const OptTensor seed, int64_t threshold,
                                         int64_t window_left, int64_t window_right, double scale) {
  AttentionForward args{};
  args.shape = shape_of(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, alibi_slopes, seed, threshold,
                        window_left, window_right, scale);
  Tensor o = contiguous_like(q);
  Tensor lse = empty({args.shape.heads, args.shape.tokens()}, ScalarType::Float, q);
  args.q = rows_of<const void>(q, "q");
  args.k = rows_of<const void>(k, "k");
  args.v = rows_of<const void>(v, "v");
  args.o = rows_of<void>(o, "o");
  args.lse = static_cast<float*>(data(lse));
  run(device::attention_fwd, args, q);
  return {o, lse};
}

std::tuple<Tensor, Tensor, Tensor> attention_bwd(
    const Tensor grad_o, const Tensor q, const Tensor k, const Tensor v, const Tensor o,
    const Tensor lse, const OptTensor cu_seqlens, const OptTensor cu_seqlens_k,
    const OptTensor seqused_k, const OptTensor alibi_slopes, const OptTensor seed,
    int64_t threshold, int64_t window_left, int64_t window_right, double scale) {
  AttentionBackward args{};
  args.shape = shape_of(q, k, v, cu_seqlens, cu_seqlens_k, seqused_k, alibi_slopes, seed, threshold,
                        window_left, window_right, scale);
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
  run(device::attention_bwd, args, q);
  return {dq, dk, dv};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(BIGFAST_NAMESPACE, BIGFAST_KEY, m) {
  m.impl("attention_fwd", TORCH_BOX(&attention_fwd));
  m.impl("attention_bwd", TORCH_BOX(&attention_bwd));
}

}  // namespace bigfast
