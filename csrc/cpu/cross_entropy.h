// Arguments of cross_entropy and of linear_cross_entropy's chunks, which share rows
// (cross_entropy.inl).
#pragma once

#include "cpu/isa.h"
#include "cpu/types.h"

namespace bigfast::cpu {

// What is added to the plain loss; all 0: nothing.
struct LossTerms {
  double label_smoothing;  // in 0..1: that share of the target is spread over all classes
  double z_loss;           // times lse^2
};

struct CrossEntropyForward {
  const void* input;      // (tokens, classes), dtype, rows row_stride apart
  const int64_t* target;  // (tokens); ignore_index, or in 0..classes-1
  float* losses;          // (tokens); 0 in ignored rows, like shift and sum
  float* shift;           // (tokens); hardly below the row's largest logit
  float* sum;             // (tokens), of exp(x - shift)
  int64_t tokens, classes, row_stride, ignore_index;
  LossTerms terms;
  DType dtype;
};

struct CrossEntropyBackward {
  const void* input;      // as above
  const int64_t* target;  // as above
  const float* shift;     // as above
  const float* sum;       // as above
  const float* dloss;     // (tokens), or (1) for all where dloss_step is 0
  void* dinput;           // (tokens, classes), dtype, contiguous
  int64_t tokens, classes, row_stride, ignore_index, dloss_step;
  LossTerms terms;
  DType dtype;
};

struct LinearCrossEntropyChunk {
  void* logits;           // (tokens, classes), dtype, contiguous; with gradient: written
  const float* bias;      // (classes); or null
  const int64_t* target;  // (tokens), in 0..classes-1
  const float* scale;     // (tokens), or (1) for all where scale_step is 0
  float* losses;          // (tokens)
  float* dbias;           // (classes), added to; or null
  int64_t tokens, classes, scale_step;
  LossTerms terms;
  DType dtype;
  bool gradient;
};

struct AddInto {
  void* out;           // (size), out_dtype; may be total or part
  const float* total;  // (size)
  const bf16* part;    // (size)
  int64_t size;
  DType out_dtype;
};

BIGFAST_KERNEL(cross_entropy_fwd, CrossEntropyForward)
BIGFAST_KERNEL(cross_entropy_bwd, CrossEntropyBackward)
BIGFAST_KERNEL(linear_cross_entropy_chunk, LinearCrossEntropyChunk)
BIGFAST_KERNEL(add_into, AddInto)

}  // namespace bigfast::cpu
