// Every native schema, and nothing else. csrc/torch/<op>.cpp serves them; the public functions,
// their autograd and their fakes are in bigfast/ops/<op>.py.
//
// Common letters: T tokens, N features, V classes (vocabulary), B sequences, S tokens of each, H
// heads, D head dim. Common arguments: `rows` int32 (T), the logical row of each token for dropout
// (default 0..T-1); `seed` int64 (1), absent where nothing is dropped; `threshold` in 0..65536: an
// element is kept where its 16-bit random number is at least that.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(BIGFAST_NAMESPACE, m) {
  // The CPU instruction set in use, all that this machine has (best last), and the choice of one.
  m.def("cpu_isa() -> str");
  m.def("cpu_isas() -> str");
  m.def("set_cpu_isa(str name) -> ()");

  // q (B, S, H, D) or packed (T, H, D); k, v the same with their own lengths and heads, which
  // divide H; unit last strides. cu_seqlens, cu_seqlens_k int32 (B + 1), seqused_k int32 (B);
  // alibi_slopes fp32 (H) or (B, H); window_left, window_right: keys before and after its own that
  // a query sees, -1: all; scale > 0
  // -> o like q, lse fp32 (H, B S or T): the log of each row's sum of exp(scale q k^T + bias).
  m.def(
      "attention_fwd(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens, Tensor? cu_seqlens_k, "
      "Tensor? seqused_k, Tensor? alibi_slopes, Tensor? seed, int threshold, int window_left, "
      "int window_right, float scale) -> (Tensor o, Tensor lse)");
  // grad_o like q, of any outer strides -> dq, dk, dv, contiguous.
  m.def(
      "attention_bwd(Tensor grad_o, Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, "
      "Tensor? cu_seqlens, Tensor? cu_seqlens_k, Tensor? seqused_k, Tensor? alibi_slopes, "
      "Tensor? seed, int threshold, int window_left, int window_right, float scale) -> "
      "(Tensor dq, Tensor dk, Tensor dv)");

  // q (B, Sq, H, D), k, v (B, S, Hk, D), the rest as above -> o like q.
  m.def(
      "attention_decode(Tensor q, Tensor k, Tensor v, Tensor? seqused_k, Tensor? alibi_slopes, "
      "int window_left, int window_right, float scale) -> Tensor");

  // x (T, K); weight (N, K), unit last stride; bias (N); all of one dtype -> y (T, N).
  m.def("linear_fwd(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  // dy (T, N) -> dx (T, K); and dweight (N, K) of that dtype.
  m.def("linear_bwd_input(Tensor dy, Tensor weight) -> Tensor");
  m.def("linear_bwd_weight(Tensor dy, Tensor x, ScalarType weight_dtype) -> Tensor");

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

  // x (T, N); bias (N) -> y like x.
  m.def("bias_gelu_fwd(Tensor x, Tensor? bias, bool tanh) -> Tensor");
  // dy like x -> dx, dbias or (0).
  m.def("bias_gelu_bwd(Tensor dy, Tensor x, Tensor? bias, bool tanh) -> (Tensor dx, Tensor dbias)");

  // gate, up (T, N), unit last stride; y, dy (T, N); the gradients of both side by side (T, 2 N).
  m.def("swiglu_fwd(Tensor gate, Tensor up) -> Tensor");
  m.def("swiglu_bwd(Tensor dy, Tensor gate, Tensor up) -> Tensor");
  m.def("geglu_fwd(Tensor gate, Tensor up, bool tanh) -> Tensor");
  m.def("geglu_bwd(Tensor dy, Tensor gate, Tensor up, bool tanh) -> Tensor");

  // q (T, H, D), k (T, Hk, D), unit last stride; cos, sin fp32 (P, R/2); positions (T) int32 or
  // int64 (absent: t % seqlen) -> q, k turned, or turned back where inverse: the backward.
  m.def(
      "rotary(Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor? positions, SymInt seqlen, "
      "bool interleaved, bool inverse) -> (Tensor, Tensor)");

  // ids (T) int32 or int64, as position_ids (absent: t % seqlen) and token_type_ids (absent: 0);
  // word (V, N), position (P, N), token_type (C, N), all of one dtype; norm_weight, norm_bias (N)
  // -> y (T, N) of out_dtype; mean, rstd (T) fp32, or (0) without norm.
  m.def(
      "embedding_fwd(Tensor ids, Tensor word, Tensor? position, Tensor? position_ids, "
      "Tensor? token_type, Tensor? token_type_ids, Tensor? norm_weight, Tensor? norm_bias, "
      "Tensor? rows, Tensor? seed, int threshold, float eps, SymInt seqlen, "
      "ScalarType out_dtype) -> (Tensor y, Tensor mean, Tensor rstd)");
  // dy like y -> gradients, (0, N) or (0) for what is absent or not wanted. padding_idx -1: none.
  m.def(
      "embedding_bwd(Tensor dy, Tensor ids, Tensor word, Tensor? position, Tensor? position_ids, "
      "Tensor? token_type, Tensor? token_type_ids, Tensor? norm_weight, Tensor mean, Tensor rstd, "
      "Tensor? rows, Tensor? seed, int threshold, SymInt seqlen, int padding_idx, bool has_bias, "
      "bool wants_word, bool wants_position, bool wants_token_type) -> "
      "(Tensor dword, Tensor dposition, Tensor dtoken_type, Tensor dnorm_weight, "
      "Tensor dnorm_bias)");

  // x (B S, N) of any dtype, unit last stride; rows int32 (T) -> (T, N); and the other way round,
  // zeros in rows that are not named: x (T, N) -> (padded, N).
  m.def("unpad(Tensor x, Tensor rows) -> Tensor");
  m.def("pad(Tensor x, Tensor rows, SymInt padded) -> Tensor");

  // input (T, V), rows at any distance; target int64 (T) -> loss fp32 () or, for reduction "none",
  // (T); stats fp32 (2, T), shift and sum of exp(x - shift) of each labelled row; count
  // fp32 (), of labelled rows.
  m.def(
      "cross_entropy_fwd(Tensor input, Tensor target, int ignore_index, str reduction, "
      "float label_smoothing, float z_loss) -> (Tensor loss, Tensor stats, Tensor count)");
  // dloss like loss -> dinput (T, V), contiguous.
  m.def(
      "cross_entropy_bwd(Tensor dloss, Tensor input, Tensor target, Tensor stats, Tensor count, "
      "int ignore_index, str reduction, float label_smoothing, float z_loss) -> Tensor");

  // One chunk of labelled rows: logits (T, V) without their bias fp32 (V); target int64 (T); scale
  // fp32 (1) or (T). losses fp32 (T) are written, their sum is added to total fp64 (). With
  // `gradient`, logits become scale times their gradient, whose column sums are added to dbias (V).
  m.def(
      "linear_cross_entropy_chunk_(Tensor(a!) logits, Tensor? bias, Tensor target, Tensor scale, "
      "Tensor(b!) losses, Tensor(c!) total, Tensor(d!)? dbias, bool gradient, "
      "float label_smoothing, float z_loss) -> ()");
  // out = total + part, in fp32; out may be either of them.
  m.def("add_into_(Tensor(a!) out, Tensor total, Tensor part) -> ()");

  // Optimizer steps, on lists of as many tensors; masters fp32, or empty. step (counted from 1),
  // lr, grad_scale and found_inf: one number each, which a GPU reads where it stands; found_inf
  // not 0: nothing is written. seed int64 (1), with which bf16 params without masters are rounded
  // stochastically. exp_avgs and exp_avg_sqs are fp32; params and grads fp32 or bf16 (on a GPU:
  // fp16).
  m.def(
      "adamw_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, "
      "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] masters, Tensor step, Tensor lr, "
      "Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, float eps, "
      "float weight_decay, bool maximize) -> ()");
  m.def(
      "lamb_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, "
      "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] masters, Tensor step, Tensor lr, "
      "Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, float eps, "
      "float weight_decay, bool maximize) -> ()");
  m.def(
      "lion_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] masters, "
      "Tensor lr, Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, "
      "float weight_decay, bool maximize) -> ()");
  m.def(
      "stable_adamw_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, "
      "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] masters, Tensor step, Tensor lr, "
      "Tensor? grad_scale, Tensor? found_inf, Tensor? seed, float beta1, float beta2, float eps, "
      "float weight_decay, bool maximize) -> ()");
  // The 2-norm over all elements of all tensors -> fp32 ().
  m.def("grad_norm(Tensor[] grads) -> Tensor");
}
