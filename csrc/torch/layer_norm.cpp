// Binding of layer_norm: checks, allocates, calls the kernels of the device (torch/device.h).
#include "torch/norm.h"

namespace bigfast {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm_fwd(const Tensor x, const OptTensor residual,
                                                          const Tensor weight, const OptTensor bias,
                                                          const OptTensor rows,
                                                          const OptTensor seed, int64_t threshold,
                                                          double eps, ScalarType out_dtype) {
  Tensor mean = empty({x.size(0)}, ScalarType::Float, x);
  auto [y, r, rstd, args] =
      norm_forward(x, residual, weight, bias, rows, seed, threshold, eps, out_dtype);
  args.mean = static_cast<float*>(data(mean));
  run(device::layer_norm_fwd, args, x);
  return {y, r, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> layer_norm_bwd(
    const Tensor dy, const OptTensor dr, const Tensor r, const Tensor weight, const Tensor mean,
    const Tensor rstd, const OptTensor rows, const OptTensor seed, int64_t threshold,
    ScalarType x_dtype, bool has_residual, bool has_bias) {
  auto [dx, dresidual, dweight, args] =
      norm_backward(dy, dr, r, weight, rstd, rows, seed, threshold, x_dtype, has_residual);
  check_contiguous(mean, "mean");
  STD_TORCH_CHECK(mean.numel() == r.size(0), "mean must have one entry per row");
  args.mean = static_cast<const float*>(data(mean));
  Tensor dbias = empty({has_bias ? weight.size(0) : 0}, weight.scalar_type(), r);
  args.dbias = has_bias ? data(dbias) : nullptr;
  const std::optional<Tensor> partials = norm_partials(args, r);
  run(device::layer_norm_bwd, args, r);
  return {dx, dresidual, dweight, dbias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(BIGFAST_NAMESPACE, BIGFAST_KEY, m) {
  m.impl("layer_norm_fwd", TORCH_BOX(&layer_norm_fwd));
  m.impl("layer_norm_bwd", TORCH_BOX(&layer_norm_bwd));
}

}  // namespace bigfast
