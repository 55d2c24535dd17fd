"""Schemas of the ops that Triton serves, for where the C++ library, which has them, is not built.

csrc/ops.cpp says what their arguments are; tests/ops/test_kernels.py asserts that both are equal.
"""

_SCHEMAS = (
    "attention_fwd(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens, Tensor? cu_seqlens_k, "
    "Tensor? seqused_k, Tensor? alibi_slopes, Tensor? seed, int threshold, int window_left, "
    "int window_right, float scale) -> (Tensor o, Tensor lse)",
    "attention_bwd(Tensor grad_o, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, "
    "Tensor? cu_seqlens, Tensor? cu_seqlens_k, Tensor? seqused_k, Tensor? alibi_slopes, "
    "Tensor? seed, int threshold, int window_left, int window_right, float scale) -> "
    "(Tensor dq, Tensor dk, Tensor dv)",
    "attention_decode(Tensor q, Tensor k, Tensor v, Tensor? seqused_k, Tensor? alibi_slopes, "
    "int window_left, int window_right, float scale) -> Tensor",
    "layer_norm_fwd(Tensor x, Tensor? residual, Tensor weight, Tensor? bias, Tensor? rows, "
    "Tensor? seed, int threshold, float eps, ScalarType out_dtype) -> "
    "(Tensor y, Tensor r, Tensor mean, Tensor rstd)",
    "layer_norm_bwd(Tensor dy, Tensor? dr, Tensor r, Tensor weight, Tensor mean, Tensor rstd, "
    "Tensor? rows, Tensor? seed, int threshold, ScalarType x_dtype, bool has_residual, "
    "bool has_bias) -> (Tensor dx, Tensor dresidual, Tensor dweight, Tensor dbias)",
    "rms_norm_fwd(Tensor x, Tensor? residual, Tensor weight, Tensor? rows, Tensor? seed, "
    "int threshold, float eps, ScalarType out_dtype) -> (Tensor y, Tensor r, Tensor rstd)",
    "rms_norm_bwd(Tensor dy, Tensor? dr, Tensor r, Tensor weight, Tensor rstd, Tensor? rows, "
    "Tensor? seed, int threshold, ScalarType x_dtype, bool has_residual) -> "
    "(Tensor dx, Tensor dresidual, Tensor dweight)",
    "bias_gelu_fwd(Tensor x, Tensor? bias, bool tanh) -> Tensor",
    "bias_gelu_bwd(Tensor dy, Tensor x, Tensor? bias, bool tanh) -> (Tensor dx, Tensor dbias)",
    "swiglu_fwd(Tensor gate, Tensor up) -> Tensor",
    "swiglu_bwd(Tensor dy, Tensor gate, Tensor up) -> Tensor",
    "geglu_fwd(Tensor gate, Tensor up, bool tanh) -> Tensor",
    "geglu_bwd(Tensor dy, Tensor gate, Tensor up, bool tanh) -> Tensor",
)
SCHEMAS = {schema.partition("(")[0]: schema for schema in _SCHEMAS}
