// csrc/cuda/norm.cu against the plain norm of native/truth.h, with all its arguments, on heap
// memory of just the right size.
#include "cuda/norm.h"

#include <cstring>

#include "native/truth.h"
#include "simt/numbers.h"

namespace {

using namespace bigfast;

// The bytes of v in a dtype; v becomes what they hold.
std::vector<char> stored(Floats& v, DType dtype) {
  std::vector<char> bytes(v.size() * (dtype == DType::f32 ? 4 : 2));
  for (size_t i = 0; i < v.size(); ++i) {
    if (dtype == DType::f32) {
      std::memcpy(&bytes[4 * i], &v[i], 4);
    } else {
      const uint16_t bits = dtype == DType::bf16 ? cuda::bf16_bits(v[i]) : cuda::f16_bits(v[i]);
      std::memcpy(&bytes[2 * i], &bits, 2);
      v[i] =
          dtype == DType::bf16 ? cuda::to_float(cuda::bf16{bits}) : cuda::to_float(cuda::f16{bits});
    }
  }
  return bytes;
}

std::vector<char> room(size_t numbers, DType dtype) {
  return std::vector<char>(numbers * (dtype == DType::f32 ? 4 : 2));
}

Floats floats(const std::vector<char>& bytes) {
  Floats v(bytes.size() / 4);
  std::memcpy(v.data(), bytes.data(), bytes.size());
  return v;
}

// In fp32 the results are checked; in 16 bits, that they are written and finite is.
void expect_finite(const char* what, const std::vector<char>& bytes, DType dtype) {
  for (size_t i = 0; dtype != DType::f32 && i < bytes.size() / 2; ++i) {
    uint16_t bits;
    std::memcpy(&bits, &bytes[2 * i], 2);
    const float v =
        dtype == DType::bf16 ? cuda::to_float(cuda::bf16{bits}) : cuda::to_float(cuda::f16{bits});
    if (!std::isfinite(v)) std::printf("FAIL %s is not finite\n", what), ++failures;
  }
}

void test_norm(int64_t rows, int64_t n, DType dtype, DType r_dtype, bool drop) {
  const size_t size = rows * n;
  Floats x = randn(size), residual = randn(size), w = randn(n), b = randn(n), dy = randn(size);
  const auto x_bytes = stored(x, dtype), residual_bytes = stored(residual, r_dtype);
  const auto w_bytes = stored(w, dtype), b_bytes = stored(b, dtype), dy_bytes = stored(dy, dtype);
  auto y = room(size, dtype), r = room(size, r_dtype), dx = room(size, dtype);
  auto dresidual = room(size, r_dtype), dw = room(n, dtype), db = room(n, dtype);
  Floats mean(rows), rstd(rows), partials(cuda::norm_partials(rows, n));
  const std::vector<int64_t> seed{42};
  std::vector<int32_t> logical(rows);
  for (int64_t i = 0; i < rows; ++i) logical[i] = static_cast<int32_t>(rows - i);
  Dropout dropout;
  if (drop) dropout = {seed.data(), logical.data(), 6554, 65536.0f / (65536 - 6554)};

  NormForward f{};
  f.x = x_bytes.data(), f.residual = residual_bytes.data(), f.weight = w_bytes.data();
  f.bias = b_bytes.data(), f.y = y.data(), f.r = r.data(), f.mean = mean.data();
  f.rstd = rstd.data(), f.tokens = rows, f.features = n, f.eps = 1e-5f, f.dropout = dropout;
  f.x_dtype = f.y_dtype = f.w_dtype = dtype, f.r_dtype = r_dtype;
  cuda::layer_norm_fwd(f, nullptr);
  NormBackward g{};
  g.dy = dy_bytes.data(), g.dr_out = nullptr, g.r = r.data(), g.weight = w_bytes.data();
  g.mean = mean.data(), g.rstd = rstd.data(), g.dx = dx.data(), g.dresidual = dresidual.data();
  g.dweight = dw.data(), g.dbias = db.data(), g.partials = partials.data();
  g.tokens = rows, g.features = n, g.dropout = dropout;
  g.x_dtype = g.y_dtype = g.w_dtype = dtype, g.r_dtype = r_dtype;
  cuda::layer_norm_bwd(g, nullptr);

  expect_finite("y", y, dtype), expect_finite("dx", dx, dtype), expect_finite("dweight", dw, dtype);
  if (dtype != DType::f32 || drop) return;
  const Norm<float> plain(x, residual, w, b, dy, rows, n);
  const Norm<double> truth(x, residual, w, b, dy, rows, n);
  check("y", floats(y), plain.y, truth.y);
  check("dx", floats(dx), plain.dx, truth.dx);
  check("dresidual", floats(dresidual), plain.dx, truth.dx);
  check("dweight", floats(dw), plain.dweight, truth.dweight);
  check("dbias", floats(db), plain.dbias, truth.dbias);
}

}  // namespace

int main() {
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  for (int64_t n : {5, 24, 768, 1023, 1032, 2072, 8192})  // a warp, a block; whole runs, and not
    for (bool drop : {false, true}) test_norm(n > 2000 ? 3 : 19, n, f32, f32, drop);
  test_norm(67, 40, f32, f32, true);  // rows in turn
  for (DType r : {f32, bf16}) test_norm(19, 1032, bf16, r, true), test_norm(19, 33, bf16, r, true);
  for (DType r : {f32, f16}) test_norm(19, 264, f16, r, true);
  test_norm(5, 16, f16, bf16, true);
  return failures != 0;
}
