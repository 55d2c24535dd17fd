// Bindings of linear and its gradients: check, allocate, call csrc/cpu/linear_{fwd,bwd}.cpp.
#include "cpu/linear.h"

#include "torch/tensor.h"

namespace bigfast {
namespace {

void check_matrices(const Tensor& x, const char* name, const Tensor& other, int64_t dim) {
  check_contiguous(x, name);
  STD_TORCH_CHECK(x.dim() == 2 && other.dim() == 2 && x.size(1) == other.size(dim), name,
                  " does not fit in its last dim");
  STD_TORCH_CHECK(x.scalar_type() == other.scalar_type(), name, " has another dtype");
}

Tensor linear_fwd(const Tensor x, const Tensor weight, const OptTensor bias) {
  check_rows(weight, "weight");
  check_matrices(x, "x", weight, 1);
  cpu::Linear args{};
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
  cpu::linear(args);
  return y;
}

Tensor linear_bwd_input(const Tensor dy, const Tensor weight) {
  check_rows(weight, "weight");
  check_matrices(dy, "dy", weight, 0);
  cpu::LinearInput args{};
  args.dtype = dtype_of(dy);
  args.rows = dy.size(0);
  args.in = weight.size(1);
  args.out = weight.size(0);
  args.weight_stride = weight.stride(0);
  Tensor dx = empty({args.rows, args.in}, dy.scalar_type());
  args.dy = data(dy);
  args.weight = data(weight);
  args.dx = data(dx);
  cpu::linear_bwd_input(args);
  return dx;
}

Tensor linear_bwd_weight(const Tensor dy, const Tensor x, ScalarType weight_dtype) {
  check_contiguous(dy, "dy");
  check_contiguous(x, "x");
  STD_TORCH_CHECK(dy.dim() == 2 && x.dim() == 2 && dy.size(0) == x.size(0),
                  "dy must be (T, N), x (T, K)");
  STD_TORCH_CHECK(dy.scalar_type() == x.scalar_type(), "dy must have x's dtype");
  cpu::LinearWeight args{};
  args.dtype = dtype_of(dy);
  args.rows = dy.size(0);
  args.in = x.size(1);
  args.out = dy.size(1);
  Tensor dweight = empty({args.out, args.in}, weight_dtype);
  args.out_dtype = dtype_of(dweight);
  args.dy = data(dy);
  args.x = data(x);
  args.dweight = data(dweight);
  cpu::linear_bwd_weight(args);
  return dweight;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("linear_fwd", TORCH_BOX(&linear_fwd));
  m.impl("linear_bwd_input", TORCH_BOX(&linear_bwd_input));
  m.impl("linear_bwd_weight", TORCH_BOX(&linear_bwd_weight));
}

}  // namespace bigfast
