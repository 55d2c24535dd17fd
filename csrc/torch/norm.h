// What the bindings of layer_norm and rms_norm share.
#pragma once

#include "torch/device.h"

#if defined(BIGFAST_CUDA)
#include "cuda/norm.h"
#else
#include "cpu/norm.h"
#endif

namespace bigfast {

// The CPU's kernels are not compiled for a bf16 residual among fp32 tensors.
inline void check_dtypes(DType x, DType r, DType y) {
  STD_TORCH_CHECK(kOnCuda || r == DType::f32 || (x == r && y == r),
                  "a bfloat16 residual goes with bfloat16 tensors alone");
}

// y, r (empty where x itself is r), rstd, and the kernel's arguments, mean still unset.
inline std::tuple<Tensor, Tensor, Tensor, NormForward> norm_forward(
    const Tensor& x, const OptTensor& residual, const Tensor& weight, const OptTensor& bias,
    const OptTensor& rows, const OptTensor& seed, int64_t threshold, double eps,
    ScalarType out_dtype) {
  check_contiguous(x, "x");
  check_contiguous(weight, "weight");
  STD_TORCH_CHECK(x.dim() == 2 && weight.numel() == x.size(1), "weight must fit x's last dim");
  const int64_t tokens = x.size(0), features = x.size(1);
  if (residual.has_value()) {
    check_contiguous(*residual, "residual");
    STD_TORCH_CHECK(residual->numel() == x.numel(), "residual must have x's shape");
  }
  if (bias.has_value()) {
    check_contiguous(*bias, "bias");
    STD_TORCH_CHECK(bias->numel() == features && bias->scalar_type() == weight.scalar_type(),
                    "bias must be like weight");
  }
  const bool makes_r = residual.has_value() || seed.has_value();
  const ScalarType r_dtype = residual.has_value() ? residual->scalar_type() : x.scalar_type();
  Tensor y = empty({tokens, features}, out_dtype, x);
  Tensor r = empty({makes_r ? tokens : 0, features}, r_dtype, x);
  Tensor rstd = empty({tokens}, ScalarType::Float, x);

  NormForward args{};
  args.x = data(x);
  args.residual = data_or_null(residual);
  args.weight = data(weight);
  args.bias = data_or_null(bias);
  args.y = data(y);
  args.r = makes_r ? data(r) : nullptr;
  args.rstd = static_cast<float*>(data(rstd));
  args.tokens = tokens;
  args.features = features;
  args.x_dtype = dtype_of(x);
  args.r_dtype = dtype_of(r);
  args.y_dtype = dtype_of(y);
  args.w_dtype = dtype_of(weight);
  check_dtypes(args.x_dtype, args.r_dtype, args.y_dtype);
  args.eps = static_cast<float>(eps);
  args.dropout = dropout_args(seed, rows, threshold, tokens);
  return {y, r, rstd, args};
}

// dx, dresidual (empty where there is none), dweight, and the kernel's arguments, mean and dbias
// still unset.
inline std::tuple<Tensor, Tensor, Tensor, NormBackward> norm_backward(
    const Tensor& dy, const OptTensor& dr, const Tensor& r, const Tensor& weight,
    const Tensor& rstd, const OptTensor& rows, const OptTensor& seed, int64_t threshold,
    ScalarType x_dtype, bool has_residual) {
  check_contiguous(dy, "dy");
  check_contiguous(r, "r");
  check_contiguous(weight, "weight");
  check_contiguous(rstd, "rstd");
  STD_TORCH_CHECK(r.dim() == 2 && dy.numel() == r.numel() && weight.numel() == r.size(1) &&
                      rstd.numel() == r.size(0),
                  "dy, r, weight and rstd must fit each other");
  const int64_t tokens = r.size(0), features = r.size(1);
  if (dr.has_value()) {
    check_contiguous(*dr, "dr");
    STD_TORCH_CHECK(dr->numel() == r.numel() && dr->scalar_type() == r.scalar_type(),
                    "dr must be like r");
  }
  Tensor dx = empty({tokens, features}, x_dtype, r);
  Tensor dresidual = empty({has_residual ? tokens : 0, features}, r.scalar_type(), r);
  Tensor dweight = empty({features}, weight.scalar_type(), r);

  NormBackward args{};
  args.dy = data(dy);
  args.dr_out = data_or_null(dr);
  args.r = data(r);
  args.weight = data(weight);
  args.rstd = static_cast<const float*>(data(rstd));
  args.dx = data(dx);
  args.dresidual = has_residual ? data(dresidual) : nullptr;
  args.dweight = data(dweight);
  args.tokens = tokens;
  args.features = features;
  args.x_dtype = dtype_of(dx);
  args.r_dtype = dtype_of(r);
  args.y_dtype = dtype_of(dy);
  args.w_dtype = dtype_of(weight);
  check_dtypes(args.x_dtype, args.r_dtype, args.y_dtype);
  args.dropout = dropout_args(seed, rows, threshold, tokens);
  return {dx, dresidual, dweight, args};
}

// The scratch of the kernel, set in args, which lives as long as what this returns: CUDA's caching
// allocator gives it to nobody but later work of the same stream.
inline std::optional<Tensor> norm_partials([[maybe_unused]] NormBackward& args,
                                           [[maybe_unused]] const Tensor& beside) {
#if defined(BIGFAST_CUDA)
  const Current current(beside);
  Tensor partials =
      empty({cuda::norm_partials(args.tokens, args.features)}, ScalarType::Float, beside);
  args.partials = static_cast<float*>(data(partials));
  return partials;
#else
  return std::nullopt;
#endif
}

}  // namespace bigfast
