// unpad gathers rows: to[t] = from[rows[t]]. pad scatters them: to[rows[t]] = from[t], zeros
// elsewhere; it goes by the rows of the result, each of which is written once, by one task.
#include "cpu/unpad.h"

#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

// Calls copy(row) for every row, in tasks of about 64 KB.
template <class Copy>
void for_rows(int64_t rows, int64_t row_bytes, Copy&& copy) {
  const int64_t step = 1 + 65536 / (row_bytes + 1);
  auto body = [&](int64_t task) {
    const int64_t end = (task + 1) * step < rows ? (task + 1) * step : rows;
    for (int64_t row = task * step; row < end; ++row) copy(row);
  };
  parallel_tasks((rows + step - 1) / step, body);
}

}  // namespace

void unpad(const RowCopy& a) noexcept {
  for_rows(a.tokens, a.row_bytes, [&](int64_t t) BIGFAST_LAMBDA {
    std::memcpy(a.to + t * a.row_bytes, a.from + a.rows[t] * a.from_stride, a.row_bytes);
  });
}

void pad(const RowCopy& a) noexcept {
  Scratch<int32_t> source(a.padded);  // the token of each row, or -1
  std::memset(source, -1, a.padded * sizeof(int32_t));
  for (int64_t t = 0; t < a.tokens; ++t) source[a.rows[t]] = static_cast<int32_t>(t);
  for_rows(a.padded, a.row_bytes, [&](int64_t row) BIGFAST_LAMBDA {
    char* to = a.to + row * a.row_bytes;
    if (source[row] < 0)
      std::memset(to, 0, a.row_bytes);
    else
      std::memcpy(to, a.from + source[row] * a.from_stride, a.row_bytes);
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
