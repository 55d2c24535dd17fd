// Binding of grad_norm: checks, cuts into tasks, calls csrc/cpu/grad_norm.cpp.
#include "cpu/grad_norm.h"

#include <algorithm>
#include <cmath>

#include "torch/tensor.h"

namespace bigfast {
namespace {

Tensor grad_norm(std::vector<Tensor> grads) {
  std::vector<cpu::GradNormTask> tasks;
  for (const Tensor& grad : grads) {
    check_contiguous(grad, "grad");
    const DType dtype = dtype_of(grad);
    const int64_t itemsize = dtype == DType::f32 ? 4 : 2, size = grad.numel();
    for (int64_t begin = 0; begin < size; begin += cpu::grad_norm_task)
      tasks.push_back({static_cast<const char*>(data(grad)) + begin * itemsize,
                       std::min(size - begin, cpu::grad_norm_task), dtype});
  }
  std::vector<double> squares(tasks.size());
  cpu::grad_norm({tasks.data(), squares.data(), static_cast<int64_t>(tasks.size())});
  double total = 0.0;
  for (double part : squares) total += part;
  Tensor norm = empty({}, ScalarType::Float);
  *static_cast<float*>(data(norm)) = static_cast<float>(std::sqrt(total));
  return norm;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) { m.impl("grad_norm", TORCH_BOX(&grad_norm)); }

}  // namespace bigfast
