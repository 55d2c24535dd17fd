// The tables of multi_tensor.h, and the kernels that write them.
#include "cuda/multi_tensor.h"

#include <algorithm>

#include "cuda/device.cuh"

namespace bigfast::cuda {
namespace {

// As many rows as the arguments of a launch have room for, in their 4 KB.
constexpr int kRows = 56;
struct Rows {
  StepTensor rows[kRows];
};
static_assert(sizeof(Rows) + 32 <= 4096);
constexpr int kRowThreads = 64, kChunkThreads = 256;
static_assert(kRows <= kRowThreads);

// tensors (count) = from
__global__ void __launch_bounds__(kRowThreads)
    write_rows_kernel(Rows from, int count, StepTensor* tensors) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) tensors[i] = from.rows[i];
}

// A block per tensor writes which chunks are its own.
__global__ void __launch_bounds__(kChunkThreads) write_chunks_kernel(StepTable table) {
  const int32_t tensor = static_cast<int32_t>(blockIdx.x);
  const StepTensor& t = table.tensors[tensor];
  const int32_t count = static_cast<int32_t>((t.size + kChunk - 1) / kChunk);
  for (int32_t place = static_cast<int32_t>(threadIdx.x); place < count; place += kChunkThreads)
    table.chunks[t.first_task + place] = {tensor, place};
}

}  // namespace

int64_t table_bytes(int64_t count, int64_t blocks) {
  return count * static_cast<int64_t>(sizeof(StepTensor)) +
         blocks * static_cast<int64_t>(sizeof(Chunk));
}

StepTable table_in(void* memory, int64_t count, int64_t blocks) {
  auto* tensors = static_cast<StepTensor*>(memory);
  return {tensors, reinterpret_cast<Chunk*>(tensors + count), static_cast<int32_t>(count),
          static_cast<int32_t>(blocks)};
}

void write_table(const std::vector<StepTensor>& rows, const StepTable& table, void* stream) {
  for (int first = 0; first < table.count; first += kRows) {
    const int count = std::min(table.count - first, kRows);
    Rows part{};
    std::copy_n(rows.begin() + first, count, part.rows);
    launch(write_rows_kernel, dim3(1), dim3(kRowThreads), 0, static_cast<Stream>(stream), part,
           count, table.tensors + first);
  }
  launch(write_chunks_kernel, dim3(table.count), dim3(kChunkThreads), 0,
         static_cast<Stream>(stream), table);
}

std::vector<StepGroup> groups_of(const std::vector<StepTensor>& rows) {
  std::vector<StepGroup> groups;
  for (const StepTensor& t : rows) {
    const StepGroup own{t.param_dtype, t.grad_dtype, t.master != nullptr,
                        static_cast<int32_t>(t.first_task), 0};
    if (groups.empty() || groups.back().param != own.param || groups.back().grad != own.grad)
      groups.push_back(own);
    groups.back().blocks += static_cast<int32_t>((t.size + kChunk - 1) / kChunk);
  }
  return groups;
}

bool captures(void* stream) { return is_capturing(static_cast<Stream>(stream)); }

}  // namespace bigfast::cuda
