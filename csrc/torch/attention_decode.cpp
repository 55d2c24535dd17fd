// Binding of attention_decode: checks, allocates, calls csrc/cpu/attention_decode.cpp.
#include "torch/attention.h"

namespace bigfast {
namespace {

Tensor attention_decode(const Tensor q, const Tensor k, const Tensor v, const OptTensor seqused_k,
                        const OptTensor alibi_slopes, int64_t window_left, int64_t window_right,
                        double scale) {
  AttentionForward args{};
  args.shape =
      shape_of(q, k, v, {}, {}, seqused_k, alibi_slopes, {}, 0, window_left, window_right, scale);
  Tensor o = contiguous_like(q);
  args.q = rows_of<const void>(q, "q");
  args.k = rows_of<const void>(k, "k");
  args.v = rows_of<const void>(v, "v");
  args.o = rows_of<void>(o, "o");
  cpu::attention_decode(args);
  return o;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("attention_decode", TORCH_BOX(&attention_decode));
}

}  // namespace bigfast
