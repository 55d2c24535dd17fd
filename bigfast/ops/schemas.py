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
    "rotary(Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor? positions, SymInt seqlen, "
    "bool interleaved, bool inverse) -> (Tensor, Tensor)",
    "cross_entropy_fwd(Tensor input, Tensor target, int ignore_index, str reduction, "
    "float label_smoothing, float z_loss) -> (Tensor loss, Tensor stats, Tensor count)",
    "cross_entropy_bwd(Tensor dloss, Tensor input, Tensor target, Tensor stats, Tensor count, "
    "int ignore_index, str reduction, float label_smoothing, float z_loss) -> Tensor",
    "embedding_fwd(Tensor ids, Tensor word, Tensor? position, Tensor? position_ids, "
    "Tensor? token_type, Tensor? token_type_ids, Tensor? norm_weight, Tensor? norm_bias, "
    "Tensor? rows, Tensor? seed, int threshold, float eps, SymInt seqlen, "
    "ScalarType out_dtype) -> (Tensor y, Tensor mean, Tensor rstd)",
    "embedding_bwd(Tensor dy, Tensor ids, Tensor word, Tensor? position, Tensor? position_ids, "
    "Tensor? token_type, Tensor? token_type_ids, Tensor? norm_weight, Tensor mean, Tensor rstd, "
    "Tensor? rows, Tensor? seed, int threshold, SymInt seqlen, int padding_idx, bool has_bias, "
    "bool wants_word, bool wants_position, bool wants_token_type) -> "
    "(Tensor dword, Tensor dposition, Tensor dtoken_type, Tensor dnorm_weight, "
    "Tensor dnorm_bias)",
    "unpad(Tensor x, Tensor rows) -> Tensor",
    "pad(Tensor x, Tensor rows, SymInt padded) -> Tensor",
    "adamw_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, "
    "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] masters, Tensor step, Tensor lr, "
    "Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, float eps, "
    "float weight_decay, bool maximize) -> ()",
    "lamb_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, "
    "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] masters, Tensor step, Tensor lr, "
    "Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, float eps, "
    "float weight_decay, bool maximize) -> ()",
    "lion_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] masters, "
    "Tensor lr, Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, "
    "float weight_decay, bool maximize) -> ()",
    "stable_adamw_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, "
    "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] masters, Tensor step, Tensor lr, "
    "Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, float eps, "
    "float weight_decay, bool maximize) -> ()",
    "grad_norm(Tensor[] grads) -> Tensor",
    "linear_cross_entropy_chunk_(Tensor(a!) logits, Tensor? bias, Tensor target, Tensor scale, "
    "Tensor(b!) losses, Tensor(c!) total, Tensor(d!)? dbias, bool gradient, "
    "float label_smoothing, float z_loss) -> ()",
    "add_into_(Tensor(a!) out, Tensor total, Tensor part) -> ()",
)
SCHEMAS = {schema.partition("(")[0]: schema for schema in _SCHEMAS}
