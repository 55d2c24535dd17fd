// Binding of linear_few: checks, allocates, calls csrc/cpu/linear_few.cpp.
#include "cpu/linear_few.h"

#include "torch/tensor.h"

namespace bigfast {
namespace {

Tensor linear_few(const Tensor x, const Tensor weight, const OptTensor bias) {
  check_contiguous(x, "x");
  check_rows(weight, "weight");
  STD_TORCH_CHECK(x.dim() == 2 && x.size(1) == weight.size(1), "x must be (T, K), weight (N, K)");
  STD_TORCH_CHECK(x.scalar_type() == weight.scalar_type(), "weight must have x's dtype");
  cpu::LinearFew args{};
  args.dtype = dtype_of(x);
  args.rows = x.size(0);
  args.in = x.size(1);
  args.out = weight.size(0);
  args.weight_stride = weight.stride(0);
  if (bias.has_value()) {
    check_contiguous(*bias, "bias");
    STD_TORCH_CHECK(bias->numel() == args.out && bias->scalar_type() == x.scalar_type(),
                    "bias must be (N) of x's dtype");
    args.bias = data(*bias);
  }
  Tensor y = empty({args.rows, args.out}, x.scalar_type());
  args.x = data(x);
  args.weight = data(weight);
  args.y = data(y);
  cpu::linear_few(args);
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("linear_few", TORCH_BOX(&linear_few)); }

}  // namespace bigfast
