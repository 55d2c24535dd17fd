// Binding of swiglu: checks, allocates, calls csrc/cpu/swiglu.cpp.
#include "cpu/swiglu.h"

#include "torch/tensor.h"

namespace bigfast {
namespace {

// What forward and backward share of their arguments.
template <class Args>
Args arguments(const Tensor& gate, const Tensor& up) {
  check_rows(gate, "gate");
  check_rows(up, "up");
  STD_TORCH_CHECK(gate.size(0) == up.size(0) && gate.size(1) == up.size(1) &&
                      gate.scalar_type() == up.scalar_type(),
                  "up must be like gate");
  Args args{};
  args.gate = data(gate);
  args.up = data(up);
  args.rows = gate.size(0);
  args.features = gate.size(1);
  args.gate_stride = gate.stride(0);
  args.up_stride = up.stride(0);
  args.dtype = dtype_of(gate);
  return args;
}

Tensor swiglu_fwd(const Tensor gate, const Tensor up) {
  auto args = arguments<cpu::SwigluForward>(gate, up);
  Tensor y = empty({args.rows, args.features}, gate.scalar_type());
  args.y = data(y);
  cpu::swiglu_fwd(args);
  return y;
}

std::tuple<Tensor, Tensor> swiglu_bwd(const Tensor dy, const Tensor gate, const Tensor up) {
  auto args = arguments<cpu::SwigluBackward>(gate, up);
  check_contiguous(dy, "dy");
  STD_TORCH_CHECK(dy.numel() == gate.numel() && dy.scalar_type() == gate.scalar_type(),
                  "dy must be like gate");
  Tensor dgate = empty({args.rows, args.features}, gate.scalar_type());
  Tensor dup = empty({args.rows, args.features}, gate.scalar_type());
  args.dy = data(dy);
  args.dgate = data(dgate);
  args.dup = data(dup);
  cpu::swiglu_bwd(args);
  return {dgate, dup};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("swiglu_fwd", TORCH_BOX(&swiglu_fwd));
  m.impl("swiglu_bwd", TORCH_BOX(&swiglu_bwd));
}

}  // namespace bigfast
