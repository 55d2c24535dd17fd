// Arguments that the optimizer steps share on CUDA: a list of tensors, cut into chunks of as many
// elements. Two tables on the device say what is whose, so that one launch, a block per chunk,
// takes all tensors of the same types. Both are written by kernels: what the host has to say comes
// with the launch. So nothing is copied that the host would have to keep or to wait for, and a CUDA
// graph that captured the writing has the tables with it.
#pragma once

#include <vector>

#include "args/multi_tensor.h"

namespace bigfast::cuda {

constexpr int64_t kChunk = 8192;  // elements

// Elements of tensor `tensor` from place * kChunk on.
struct Chunk {
  int32_t tensor, place;
};

struct StepTable {
  StepTensor* tensors;  // (count); tasks are chunks; those of the same types stand together
  Chunk* chunks;        // (blocks)
  int32_t count, blocks;
};

// Tensors of the same types: their part of the chunks.
struct StepGroup {
  DType param, grad;
  bool master;
  int32_t first_block, blocks;
};

int64_t table_bytes(int64_t count, int64_t blocks);
StepTable table_in(void* memory, int64_t count, int64_t blocks);  // memory is aligned to 16 bytes
void write_table(const std::vector<StepTensor>& rows, const StepTable& table, void* stream);
std::vector<StepGroup> groups_of(const std::vector<StepTensor>& rows);
// Whether what the stream is given now is captured into a graph, to be done later and repeatedly.
bool captures(void* stream);

// One number of a step: itself, or where it stands on the device, to be read there by each launch.
enum class NumberType : int { f32, f64, i64 };
struct Number {
  const void* at;  // null: `value`
  NumberType type;
  double value;
};

struct StepList {
  StepTable table;
  const int64_t* seed;  // of the stochastic rounding of bf16 without master; null: to nearest
  Number grad_scale;    // what gradients are multiplied with
  Number found_inf;     // not 0: nothing is written
  float sign;           // of the gradients; -1: maximize
};

}  // namespace bigfast::cuda
