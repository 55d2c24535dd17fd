// Binding of linear_cross_entropy's chunks: checks, calls csrc/cpu/linear_cross_entropy.cpp.
#include "torch/cross_entropy.h"

namespace bigfast {
namespace {

void linear_cross_entropy_chunk_(Tensor logits, const OptTensor bias, const Tensor target,
                                 const Tensor scale, Tensor losses, Tensor total, OptTensor dbias,
                                 bool gradient, double label_smoothing, double z_loss) {
  check_contiguous(logits, "logits");
  STD_TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0, "logits must be (T, V), V > 0");
  check_contiguous(total, "total");
  STD_TORCH_CHECK(total.scalar_type() == ScalarType::Double && total.numel() == 1,
                  "total must be one float64");
  STD_TORCH_CHECK(gradient || !dbias.has_value(), "dbias needs gradient");
  const int64_t tokens = logits.size(0), classes = logits.size(1);

  cpu::LinearCrossEntropyChunk args{};
  args.logits = data(logits);
  args.bias = bias.has_value() ? floats_of(*bias, classes, "bias") : nullptr;
  args.target = labels_of(target, tokens);
  count_labels(args.target, tokens, classes, std::nullopt);
  std::tie(args.scale, args.scale_step) = per_row(scale, tokens, "scale");
  args.losses = floats_of(losses, tokens, "losses");
  args.dbias = dbias.has_value() ? floats_of(*dbias, classes, "dbias") : nullptr;
  args.tokens = tokens;
  args.classes = classes;
  args.dtype = dtype_of(logits);
  args.terms = {label_smoothing, z_loss};
  args.gradient = gradient;
  cpu::linear_cross_entropy_chunk(args);
  double sum = *static_cast<double*>(data(total));
  for (int64_t t = 0; t < tokens; ++t) sum += static_cast<double>(args.losses[t]);
  *static_cast<double*>(data(total)) = sum;
}

void add_into_(Tensor out, const Tensor total, const Tensor part) {
  check_contiguous(out, "out");
  check_contiguous(part, "part");
  STD_TORCH_CHECK(part.scalar_type() == ScalarType::BFloat16 && part.numel() == out.numel(),
                  "part must be bfloat16, like out in shape");
  cpu::AddInto args{};
  args.out = data(out);
  args.total = floats_of(total, out.numel(), "total");
  args.part = static_cast<const cpu::bf16*>(data(part));
  args.size = out.numel();
  args.out_dtype = dtype_of(out);
  cpu::add_into(args);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("linear_cross_entropy_chunk_", TORCH_BOX(&linear_cross_entropy_chunk_));
  m.impl("add_into_", TORCH_BOX(&add_into_));
}

}  // namespace bigfast
