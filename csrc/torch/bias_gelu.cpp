// Binding of bias_gelu: checks, allocates, calls csrc/cpu/bias_gelu.cpp.
#include "cpu/bias_gelu.h"

#include "torch/tensor.h"

namespace bigfast {
namespace {

// What forward and backward share of their arguments.
template <class Args>
Args arguments(const Tensor& x, const OptTensor& bias, bool tanh) {
  check_contiguous(x, "x");
  STD_TORCH_CHECK(x.dim() == 2, "x must be (T, N)");
  Args args{};
  args.x = data(x);
  args.tokens = x.size(0);
  args.features = x.size(1);
  args.dtype = dtype_of(x);
  args.tanh = tanh;
  if (bias.has_value()) {
    check_contiguous(*bias, "bias");
    STD_TORCH_CHECK(bias->numel() == x.size(1), "bias must fit x's last dim");
    args.bias = data(*bias);
    args.bias_dtype = dtype_of(*bias);
  }
  return args;
}

Tensor bias_gelu_fwd(const Tensor x, const OptTensor bias, bool tanh) {
  auto args = arguments<cpu::BiasGeluForward>(x, bias, tanh);
  Tensor y = empty({x.size(0), x.size(1)}, x.scalar_type());
  args.y = data(y);
  cpu::bias_gelu_fwd(args);
  return y;
}

std::tuple<Tensor, Tensor> bias_gelu_bwd(const Tensor dy, const Tensor x, const OptTensor bias,
                                         bool tanh) {
  auto args = arguments<cpu::BiasGeluBackward>(x, bias, tanh);
  check_contiguous(dy, "dy");
  STD_TORCH_CHECK(dy.numel() == x.numel() && dy.scalar_type() == x.scalar_type(),
                  "dy must be like x");
  Tensor dx = empty({x.size(0), x.size(1)}, x.scalar_type());
  Tensor dbias =
      bias.has_value() ? empty({x.size(1)}, bias->scalar_type()) : empty({0}, x.scalar_type());
  args.dy = data(dy);
  args.dx = data(dx);
  args.dbias = bias.has_value() ? data(dbias) : nullptr;
  cpu::bias_gelu_bwd(args);
  return {dx, dbias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("bias_gelu_fwd", TORCH_BOX(&bias_gelu_fwd));
  m.impl("bias_gelu_bwd", TORCH_BOX(&bias_gelu_bwd));
}

}  // namespace bigfast
