// Binding of embedding: checks, allocates, calls csrc/cpu/embedding.cpp.
#include "cpu/embedding.h"

#include "torch/index.h"

namespace bigfast {
namespace {

cpu::EmbeddingTable table(const OptTensor& weight, const OptTensor& ids, const char* name,
                          const Tensor& word, int64_t tokens, int64_t period) {
  cpu::EmbeddingTable table{};
  if (!weight.has_value()) return table;
  check_contiguous(*weight, name);
  STD_TORCH_CHECK(weight->dim() == 2 && weight->size(1) == word.size(1) &&
                      weight->scalar_type() == word.scalar_type(),
                  name, " must be like word");
  table.weight = data(*weight);
  table.rows = weight->size(0);
  table.index = checked_index(ids, name, tokens, period, table.rows);
  return table;
}

// What forward and backward share of their arguments.
template <class Args>
Args arguments(const Tensor& ids, const Tensor& word, const OptTensor& position,
               const OptTensor& position_ids, const OptTensor& token_type,
               const OptTensor& token_type_ids, const OptTensor& norm_weight, const OptTensor& rows,
               const OptTensor& seed, int64_t threshold, int64_t seqlen) {
  const int64_t tokens = ids.numel();
  STD_TORCH_CHECK(word.dim() == 2 && word.size(1) > 0, "word must be (V, N)");
  STD_TORCH_CHECK(tokens < (int64_t{1} << 31), "there must be less than 2^31 tokens");
  STD_TORCH_CHECK(seqlen > 0 || tokens == 0, "seqlen must be positive");
  Args args{};
  args.word = table(word, ids, "word", word, tokens, 1);
  args.position = table(position, position_ids, "position", word, tokens, seqlen);
  args.token_type = table(token_type, token_type_ids, "token_type", word, tokens, 1);
  args.tokens = tokens;
  args.features = word.size(1);
  args.table_dtype = dtype_of(word);
  args.dropout = dropout_args(seed, rows, threshold, tokens);
  if (norm_weight.has_value()) {
    check_contiguous(*norm_weight, "norm_weight");
    STD_TORCH_CHECK(norm_weight->numel() == word.size(1), "norm_weight must fit word");
    args.norm_weight = data(*norm_weight);
    args.norm_dtype = dtype_of(*norm_weight);
  }
  return args;
}

std::tuple<Tensor, Tensor, Tensor> embedding_fwd(
    const Tensor ids, const Tensor word, const OptTensor position, const OptTensor position_ids,
    const OptTensor token_type, const OptTensor token_type_ids, const OptTensor norm_weight,
    const OptTensor norm_bias, const OptTensor rows, const OptTensor seed, int64_t threshold,
    double eps, int64_t seqlen, ScalarType out_dtype) {
  auto args =
      arguments<cpu::EmbeddingForward>(ids, word, position, position_ids, token_type,
                                       token_type_ids, norm_weight, rows, seed, threshold, seqlen);
  if (norm_bias.has_value()) {
    check_contiguous(*norm_bias, "norm_bias");
    STD_TORCH_CHECK(norm_weight.has_value() && norm_bias->numel() == word.size(1) &&
                        norm_bias->scalar_type() == norm_weight->scalar_type(),
                    "norm_bias must be like norm_weight");
    args.norm_bias = data(*norm_bias);
  }
  const int64_t normed = norm_weight.has_value() ? args.tokens : 0;
  Tensor y = empty({args.tokens, args.features}, out_dtype);
  Tensor mean = empty({normed}, ScalarType::Float);
  Tensor rstd = empty({normed}, ScalarType::Float);
  args.y = data(y);
  args.y_dtype = dtype_of(y);
  args.mean = static_cast<float*>(data(mean));
  args.rstd = static_cast<float*>(data(rstd));
  args.eps = static_cast<float>(eps);
  cpu::embedding_fwd(args);
  return {y, mean, rstd};
}

// A gradient like `weight`, or (0, N) where it is not wanted.
Tensor gradient(const OptTensor& weight, bool wanted, int64_t features, ScalarType dtype) {
  return empty({weight.has_value() && wanted ? weight->size(0) : 0, features}, dtype);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> embedding_bwd(
    const Tensor dy, const Tensor ids, const Tensor word, const OptTensor position,
    const OptTensor position_ids, const OptTensor token_type, const OptTensor token_type_ids,
    const OptTensor norm_weight, const Tensor mean, const Tensor rstd, const OptTensor rows,
    const OptTensor seed, int64_t threshold, int64_t seqlen, int64_t padding_idx, bool has_bias,
    bool wants_word, bool wants_position, bool wants_token_type) {
  auto args =
      arguments<cpu::EmbeddingBackward>(ids, word, position, position_ids, token_type,
                                        token_type_ids, norm_weight, rows, seed, threshold, seqlen);
  check_contiguous(dy, "dy");
  check_contiguous(mean, "mean");
  check_contiguous(rstd, "rstd");
  STD_TORCH_CHECK(dy.numel() == args.tokens * args.features, "dy must be (T, N)");
  const int64_t normed = norm_weight.has_value() ? args.tokens : 0;
  STD_TORCH_CHECK(mean.numel() == normed && rstd.numel() == normed,
                  "mean and rstd must have one entry per token");
  const ScalarType dtype = word.scalar_type();
  const ScalarType norm_dtype = norm_weight.has_value() ? norm_weight->scalar_type() : dtype;
  Tensor dword = gradient(word, wants_word, args.features, dtype);
  Tensor dposition = gradient(position, wants_position, args.features, dtype);
  Tensor dtoken_type = gradient(token_type, wants_token_type, args.features, dtype);
  Tensor dnorm_weight = empty({norm_weight.has_value() ? args.features : 0}, norm_dtype);
  Tensor dnorm_bias = empty({has_bias ? args.features : 0}, norm_dtype);
  const auto wanted = [](const Tensor& t) { return t.numel() > 0 ? data(t) : nullptr; };
  args.dy = data(dy);
  args.y_dtype = dtype_of(dy);
  args.mean = static_cast<const float*>(data(mean));
  args.rstd = static_cast<const float*>(data(rstd));
  args.dword = wanted(dword);
  args.dposition = wanted(dposition);
  args.dtoken_type = wanted(dtoken_type);
  args.dnorm_weight = wanted(dnorm_weight);
  args.dnorm_bias = wanted(dnorm_bias);
  args.padding_idx = padding_idx;
  cpu::embedding_bwd(args);
  return {dword, dposition, dtoken_type, dnorm_weight, dnorm_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("embedding_fwd", TORCH_BOX(&embedding_fwd));
  m.impl("embedding_bwd", TORCH_BOX(&embedding_bwd));
}

}  // namespace bigfast
