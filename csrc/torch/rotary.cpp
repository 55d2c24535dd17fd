// Binding of rotary: checks, allocates, calls csrc/cpu/rotary.cpp.
#include "cpu/rotary.h"

#include "torch/index.h"

namespace bigfast {
namespace {

cpu::RotaryHeads heads(const Tensor& x, const Tensor& to, const char* name) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() == 3 && (x.stride(2) == 1 || x.numel() == 0), name,
                  " must be (T, H, D) with unit last stride, on the CPU");
  return {data(x), x.stride(0), x.stride(1), data(to), x.size(1)};
}

std::tuple<Tensor, Tensor> rotary(const Tensor q, const Tensor k, const Tensor cos,
                                  const Tensor sin, const OptTensor positions, int64_t seqlen,
                                  bool interleaved, bool inverse) {
  check_contiguous(cos, "cos");
  check_contiguous(sin, "sin");
  STD_TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && q.size(0) == k.size(0) &&
                      q.size(2) == k.size(2) && q.scalar_type() == k.scalar_type(),
                  "k must be like q");
  STD_TORCH_CHECK(cos.dim() == 2 && sin.dim() == 2 && cos.size(0) == sin.size(0) &&
                      cos.size(1) == sin.size(1) && 2 * cos.size(1) <= q.size(2) &&
                      cos.scalar_type() == ScalarType::Float &&
                      sin.scalar_type() == ScalarType::Float,
                  "cos and sin must be float32 (P, R/2), R <= D");
  STD_TORCH_CHECK(seqlen > 0 || q.size(0) == 0, "seqlen must be positive");
  Tensor q_out = empty({q.size(0), q.size(1), q.size(2)}, q.scalar_type());
  Tensor k_out = empty({k.size(0), k.size(1), k.size(2)}, k.scalar_type());
  cpu::Rotary args{};
  args.q = heads(q, q_out, "q");
  args.k = heads(k, k_out, "k");
  args.cos = static_cast<const float*>(data(cos));
  args.sin = static_cast<const float*>(data(sin));
  args.positions = checked_index(positions, "positions", q.size(0), seqlen, cos.size(0));
  args.tokens = q.size(0);
  args.head_dim = q.size(2);
  args.pairs = cos.size(1);
  args.dtype = dtype_of(q);
  args.interleaved = interleaved;
  args.inverse = inverse;
  cpu::rotary(args);
  return {q_out, k_out};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("rotary", TORCH_BOX(&rotary)); }

}  // namespace bigfast
