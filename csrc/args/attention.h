// Arguments of attention. Dense and packed are one code path: sequence b is a range of queries and
// a range of keys.
#pragma once

#include "args/types.h"

namespace bigfast {

// Rows of `dim` neighbouring elements; row (b, token, head) begins at b batch + token token +
// head head, in elements. Packed: batch is 0, and tokens count over all sequences.
template <class Void>
struct AttentionRows {
  Void* data;
  int64_t batch, token, head;
};

struct AttentionShape {
  int64_t batch, heads, kv_heads, dim;
  int64_t queries, keys;        // dense: of each sequence; packed: of all
  const int32_t* cu_seqlens;    // (batch + 1), on the CPU checked; null: dense
  const int32_t* cu_seqlens_k;  // (batch + 1), checked; null: cu_seqlens
  const int32_t* seqused_k;     // (batch), checked; null: all keys count
  int64_t left, right;          // keys before and after its own that a query sees, >= 0
  const float* alibi_slopes;    // one per head, alibi_batch from sequence to sequence; null: none
  int64_t alibi_batch;          // heads, or 0 where all sequences have the same
  float scale;                  // > 0
  DType dtype;
  Dropout dropout;

  int64_t tokens() const { return cu_seqlens ? queries : batch * queries; }  // of all sequences
};

struct AttentionForward {
  AttentionShape shape;
  AttentionRows<const void> q, k, v;
  AttentionRows<void> o;
  float* lse;  // (heads, tokens)
};

struct AttentionBackward {
  AttentionShape shape;
  AttentionRows<const void> q, k, v, o, grad_o;
  const float* lse;  // (heads, tokens)
  AttentionRows<void> dq, dk, dv;
};

}  // namespace bigfast
