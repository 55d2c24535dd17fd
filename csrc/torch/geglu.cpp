// Binding of geglu: calls csrc/cpu/geglu.cpp.
#include "torch/gated.h"

namespace bigfast {
namespace {

Tensor geglu_fwd(const Tensor gate, const Tensor up, bool tanh) {
  return gated_forward(cpu::geglu_fwd, gate, up, tanh);
}

Tensor geglu_bwd(const Tensor dy, const Tensor gate, const Tensor up, bool tanh) {
  return gated_backward(cpu::geglu_bwd, dy, gate, up, tanh);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("geglu_fwd", TORCH_BOX(&geglu_fwd));
  m.impl("geglu_bwd", TORCH_BOX(&geglu_bwd));
}

}  // namespace bigfast
