// What the bindings of swiglu and geglu share: checks, results, arguments.
#pragma once

#include "cpu/gated.h"
#include "torch/tensor.h"

namespace bigfast {

// What forward and backward share of their arguments.
template <class Args>
Args gated_arguments(const Tensor& gate, const Tensor& up, bool tanh) {
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
  args.tanh = tanh;
  return args;
}

template <class Kernel>
Tensor gated_forward(Kernel kernel, const Tensor& gate, const Tensor& up, bool tanh) {
  auto args = gated_arguments<cpu::GatedForward>(gate, up, tanh);
  Tensor y = empty({args.rows, args.features}, gate.scalar_type());
  args.y = data(y);
  kernel(args);
  return y;
}

// Rows of dgate and dup side by side: the gradient of one product that gate and up are halves of.
template <class Kernel>
Tensor gated_backward(Kernel kernel, const Tensor& dy, const Tensor& gate, const Tensor& up,
                      bool tanh) {
  auto args = gated_arguments<cpu::GatedBackward>(gate, up, tanh);
  check_contiguous(dy, "dy");
  STD_TORCH_CHECK(dy.numel() == gate.numel() && dy.scalar_type() == gate.scalar_type(),
                  "dy must be like gate");
  Tensor grads = empty({args.rows, 2 * args.features}, gate.scalar_type());
  args.dy = data(dy);
  args.dgate = data(grads);
  args.dup = static_cast<char*>(args.dgate) + args.features * grads.element_size();
  args.grad_stride = 2 * args.features;
  kernel(args);
  return grads;
}

}  // namespace bigfast
