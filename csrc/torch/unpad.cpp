// Binding of unpad and pad: checks, allocates, calls csrc/cpu/unpad.cpp.
#include "cpu/unpad.h"

#include "torch/index.h"

namespace bigfast {
namespace {

cpu::RowCopy arguments(const Tensor& x, const Tensor& rows, int64_t padded) {
  check_rows(x, "x");
  check_int32(rows, "rows");
  STD_TORCH_CHECK(padded < (int64_t{1} << 31), "there must be less than 2^31 rows");
  checked_index(rows, "rows", rows.numel(), 1, padded);
  cpu::RowCopy args{};
  args.from = static_cast<const char*>(data(x));
  args.rows = static_cast<const int32_t*>(data(rows));
  args.tokens = rows.numel();
  args.padded = padded;
  args.row_bytes = x.size(1) * static_cast<int64_t>(x.element_size());
  args.from_stride = x.stride(0) * static_cast<int64_t>(x.element_size());
  return args;
}

Tensor unpad(const Tensor x, const Tensor rows) {
  auto args = arguments(x, rows, x.size(0));
  Tensor out = empty({args.tokens, x.size(1)}, x.scalar_type());
  args.to = static_cast<char*>(data(out));
  cpu::unpad(args);
  return out;
}

Tensor pad(const Tensor x, const Tensor rows, int64_t padded) {
  auto args = arguments(x, rows, padded);
  STD_TORCH_CHECK(x.size(0) == args.tokens, "x must have one row per token");
  Tensor out = empty({padded, x.size(1)}, x.scalar_type());
  args.to = static_cast<char*>(data(out));
  cpu::pad(args);
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(bigfast, CPU, m) {
  m.impl("unpad", TORCH_BOX(&unpad));
  m.impl("pad", TORCH_BOX(&pad));
}

}  // namespace bigfast
