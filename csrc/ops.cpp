// Every native schema, and nothing else. csrc/torch/<op>.cpp serves them; the public functions,
// their autograd and their fakes are in bigfast/ops/<op>.py.
//
// Common letters: T tokens, N features. Common arguments: `rows` int32 (T), the logical row of each
// token for dropout (default 0..T-1); `seed` int64 (1), absent where nothing is dropped; `threshold`
// in 0..65536, an element is kept where its 16-bit random number is >= it.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(bigfast, m) {
  // The CPU instruction set in use, all that this machine has (best last), and the choice of one.
  m.def("cpu_isa() -> str");
  m.def("cpu_isas() -> str");
  m.def("set_cpu_isa(str name) -> ()");

  // x, residual (T, N); weight, bias (N) -> y (T, N) of out_dtype, r (T, N) or (0, N) where r is x,
  // mean (T) fp32, rstd (T) fp32.
  m.def(
      "layer_norm_fwd(Tensor x, Tensor? residual, Tensor weight, Tensor? bias, Tensor? rows, "
      "Tensor? seed, int threshold, float eps, ScalarType out_dtype) -> "
      "(Tensor y, Tensor r, Tensor mean, Tensor rstd)");
  // dy like y; dr like r -> dx, dresidual or (0, N), dweight, dbias or (0).
  m.def(
      "layer_norm_bwd(Tensor dy, Tensor? dr, Tensor r, Tensor weight, Tensor mean, Tensor rstd, "
      "Tensor? rows, Tensor? seed, int threshold, ScalarType x_dtype, bool has_residual, "
      "bool has_bias) -> (Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)");
  // As layer_norm, without mean and bias.
  m.def(
      "rms_norm_fwd(Tensor x, Tensor? residual, Tensor weight, Tensor? rows, Tensor? seed, "
      "int threshold, float eps, ScalarType out_dtype) -> (Tensor y, Tensor r, Tensor rstd)");
  m.def(
      "rms_norm_bwd(Tensor dy, Tensor? dr, Tensor r, Tensor weight, Tensor rstd, Tensor? rows, "
      "Tensor? seed, int threshold, ScalarType x_dtype, bool has_residual) -> "
      "(Tensor dx, Tensor dresidual, Tensor dweight)");
}
