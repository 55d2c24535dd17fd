// Binding of swiglu: calls csrc/cpu/swiglu.cpp.
#include "torch/gated.h"

namespace bigfast {
namespace {

Tensor swiglu_fwd(const Tensor gate, const Tensor up) {
  return gated_forward(cpu::swiglu_fwd, gate, up, false);
}

Tensor swiglu_bwd(const Tensor dy, const Tensor gate, const Tensor up) {
  return gated_backward(cpu::swiglu_bwd, dy, gate, up, false);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("swiglu_fwd", TORCH_BOX(&swiglu_fwd));
  m.impl("swiglu_bwd", TORCH_BOX(&swiglu_bwd));
}

}  // namespace bigfast
