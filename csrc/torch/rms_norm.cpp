// Binding of rms_norm: checks, allocates, calls the kernels of the device (torch/device.h).
#include "torch/norm.h"

namespace bigfast {
namespace {

std::tuple<Tensor, Tensor, Tensor> rms_norm_fwd(const Tensor x, const OptTensor residual,
                                                const Tensor weight, const OptTensor rows,
                                                const OptTensor seed, int64_t threshold, double eps,
                                                ScalarType out_dtype) {
  auto [y, r, rstd, args] =
      norm_forward(x, residual, weight, std::nullopt, rows, seed, threshold, eps, out_dtype);
  run(device::rms_norm_fwd, args, x);
  return {y, r, rstd};
}

std::tuple<Tensor, Tensor, Tensor> rms_norm_bwd(const Tensor dy, const OptTensor dr, const Tensor r,
                                                const Tensor weight, const Tensor rstd,
                                                const OptTensor rows, const OptTensor seed,
                                                int64_t threshold, ScalarType x_dtype,
                                                bool has_residual) {
  auto [dx, dresidual, dweight, args] =
      norm_backward(dy, dr, r, weight, rstd, rows, seed, threshold, x_dtype, has_residual);
  const std::optional<Tensor> partials = norm_partials(args, r);
  run(device::rms_norm_bwd, args, r);
  return {dx, dresidual, dweight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(BIGFAST_NAMESPACE, BIGFAST_KEY, m) {
  m.impl("rms_norm_fwd", TORCH_BOX(&rms_norm_fwd));
  m.impl("rms_norm_bwd", TORCH_BOX(&rms_norm_bwd));
}

}  // namespace bigfast
