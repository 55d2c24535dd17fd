// Arguments of embedding. Indices have been checked against their tables.
#pragma once

#include "cpu/index.h"
#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

// One of the tables that are summed.
struct EmbeddingTable {
  const void* weight;  // (rows, features), table_dtype; null: no such term
  Index index;
  int64_t rows;
};

struct EmbeddingForward {
  EmbeddingTable word, position, token_type;
  const void* norm_weight;  // (features), norm_dtype; null: no norm
  const void* norm_bias;    // (features), norm_dtype; or null
  void* y;                  // (tokens, features), y_dtype
  float* mean;              // (tokens); unused without norm
  float* rstd;              // (tokens); unused without norm
  int64_t tokens, features;
  DType table_dtype, norm_dtype, y_dtype;
  float eps;
  Dropout dropout;
};

struct EmbeddingBackward {
  const void* dy;  // (tokens, features), y_dtype
  EmbeddingTable word, position, token_type;
  const void* norm_weight;  // (features), norm_dtype; null: no norm
  const float* mean;        // (tokens); unused without norm
  const float* rstd;        // (tokens); unused without norm
  void* dword;              // like the tables; null: not wanted
  void* dposition;
  void* dtoken_type;
  void* dnorm_weight;   // (features), norm_dtype; null without norm
  void* dnorm_bias;     // (features), norm_dtype; or null
  int64_t padding_idx;  // this row of dword is zero; -1: none
  int64_t tokens, features;
  DType table_dtype, norm_dtype, y_dtype;
  Dropout dropout;
};

BIGFAST_KERNEL(embedding_fwd, EmbeddingForward)
BIGFAST_KERNEL(embedding_bwd, EmbeddingBackward)

}  // namespace bigfast::cpu
