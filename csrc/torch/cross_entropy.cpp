// Binding of cross_entropy: checks, allocates, calls csrc/cpu/cross_entropy.cpp.
#include "torch/cross_entropy.h"

#include <string>

namespace bigfast {
namespace {

void check_rows(const Tensor& input) {
  STD_TORCH_CHECK(input.is_cpu() && input.dim() == 2 && input.size(1) > 0 &&
                      (input.stride(1) == 1 || input.size(1) == 1),
                  "input must be (T, V), V > 0, on the CPU with a unit last stride");
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy_fwd(const Tensor input, const Tensor target,
                                                     int64_t ignore_index, std::string reduction,
                                                     double label_smoothing, double z_loss) {
  check_rows(input);
  const int64_t tokens = input.size(0), classes = input.size(1);
  const int64_t* labels = labels_of(target, tokens);
  const int64_t labelled = count_labels(labels, tokens, classes, ignore_index);
  Tensor losses = empty({tokens}, ScalarType::Float);
  Tensor stats = empty({2, tokens}, ScalarType::Float);
  Tensor count = empty({}, ScalarType::Float);
  *static_cast<float*>(data(count)) = static_cast<float>(labelled);

  cpu::CrossEntropyForward args{};
  args.input = data(input);
  args.target = labels;
  args.losses = static_cast<float*>(data(losses));
  args.shift = static_cast<float*>(data(stats));
  args.sum = args.shift + tokens;
  args.tokens = tokens;
  args.classes = classes;
  args.row_stride = input.stride(0);
  args.ignore_index = ignore_index;
  args.terms = {label_smoothing, z_loss};
  args.dtype = dtype_of(input);
  cpu::cross_entropy_fwd(args);
  if (reduction == "none") return {losses, stats, count};

  double total = 0.0;
  for (int64_t t = 0; t < tokens; ++t) total += static_cast<double>(args.losses[t]);
  if (reduction == "mean") total /= static_cast<double>(labelled);
  Tensor loss = empty({}, ScalarType::Float);
  *static_cast<float*>(data(loss)) = static_cast<float>(total);
  return {loss, stats, count};
}

Tensor cross_entropy_bwd(const Tensor dloss, const Tensor input, const Tensor target,
                         const Tensor stats, const Tensor count, int64_t ignore_index,
                         std::string reduction, double label_smoothing, double z_loss) {
  check_rows(input);
  const int64_t tokens = input.size(0), classes = input.size(1);
  const int64_t* labels = labels_of(target, tokens);
  count_labels(labels, tokens, classes, ignore_index);
  Tensor dinput = empty({tokens, classes}, input.scalar_type());

  cpu::CrossEntropyBackward args{};
  args.input = data(input);
  args.target = labels;
  args.shift = floats_of(stats, 2 * tokens, "stats");
  args.sum = args.shift + tokens;
  args.dinput = data(dinput);
  args.tokens = tokens;
  args.classes = classes;
  args.row_stride = input.stride(0);
  args.ignore_index = ignore_index;
  args.terms = {label_smoothing, z_loss};
  args.dtype = dtype_of(input);
  float scale;
  if (reduction == "none") {
    args.dloss = floats_of(dloss, tokens, "dloss");
    args.dloss_step = 1;
  } else {
    scale = *floats_of(dloss, 1, "dloss");
    if (reduction == "mean") scale /= *floats_of(count, 1, "count");
    args.dloss = &scale;
  }
  cpu::cross_entropy_bwd(args);
  return dinput;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("cross_entropy_fwd", TORCH_BOX(&cross_entropy_fwd));
  m.impl("cross_entropy_bwd", TORCH_BOX(&cross_entropy_bwd));
}

}  // namespace bigfast
