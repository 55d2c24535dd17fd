// The portable kernels without torch, so that they can run where torch does not: cross-compiled for
// arm64 and run under an emulator by `make test-arm64`.
//
// Each op is written here once more, in the plainest way, for a number type: in double it is the
// truth, in float the plain implementation whose error bigfast/tolerance.py doubles.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "cpu/attention.h"
#include "cpu/bias_gelu.h"
#include "cpu/cross_entropy.h"
#include "cpu/norm.h"
#include "cpu/parallel.h"
#include "native/truth.h"

namespace bigfast::cpu {
void run_tasks(int64_t tasks, void (*body)(int64_t, void*), void* context, bool backwards) {
  for (int64_t i = 0; i < tasks; ++i) body(backwards ? tasks - 1 - i : i, context);
}
}  // namespace bigfast::cpu

namespace {

using namespace bigfast;
using namespace bigfast::cpu;

// --- layer_norm with a residual
void test_layer_norm(int64_t rows, int64_t n) {
  const Floats x = randn(rows * n), residual = randn(rows * n), w = randn(n), b = randn(n),
               dy = randn(rows * n);
  Floats y(rows * n), r(rows * n), mean(rows), rstd(rows), dx(rows * n), dw(n), db(n);
  NormForward f{};
  f.x = x.data(), f.residual = residual.data(), f.weight = w.data(), f.bias = b.data();
  f.y = y.data(), f.r = r.data(), f.mean = mean.data(), f.rstd = rstd.data();
  f.tokens = rows, f.features = n, f.eps = 1e-5f;
  layer_norm_fwd(f);
  NormBackward g{};
  g.dy = dy.data(), g.r = r.data(), g.weight = w.data(), g.mean = mean.data();
  g.rstd = rstd.data(), g.dx = dx.data(), g.dweight = dw.data(), g.dbias = db.data();
  g.tokens = rows, g.features = n;
  layer_norm_bwd(g);
  const Norm<float> plain(x, residual, w, b, dy, rows, n);
  const Norm<double> truth(x, residual, w, b, dy, rows, n);
  check("layer_norm y", y, plain.y, truth.y);
  check("layer_norm dx", dx, plain.dx, truth.dx);
  check("layer_norm dweight", dw, plain.dweight, truth.dweight);
  check("layer_norm dbias", db, plain.dbias, truth.dbias);
}

// --- bias_gelu
template <class T>
std::vector<T> gelu(const Floats& x, const Floats& b, const Floats* dy) {
  std::vector<T> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const T v = T(x[i]) + T(b[i % b.size()]), phi = T(0.5) * (1 + std::erf(v / std::sqrt(T(2))));
    const T slope = v * std::exp(-v * v / 2) * T(0.3989422804014327);
    out[i] = dy ? T((*dy)[i]) * (phi + slope) : v * phi;
  }
  return out;
}

void test_bias_gelu(int64_t rows, int64_t n) {
  const Floats x = randn(rows * n, 2), b = randn(n), dy = randn(rows * n);
  Floats y(rows * n), dx(rows * n), db(n);
  BiasGeluForward f{};
  f.x = x.data(), f.bias = b.data(), f.y = y.data(), f.tokens = rows, f.features = n;
  bias_gelu_fwd(f);
  BiasGeluBackward g{};
  g.dy = dy.data(), g.x = x.data(), g.bias = b.data(), g.dx = dx.data(), g.dbias = db.data();
  g.tokens = rows, g.features = n;
  bias_gelu_bwd(g);
  check("bias_gelu y", y, gelu<float>(x, b, nullptr), gelu<double>(x, b, nullptr));
  check("bias_gelu dx", dx, gelu<float>(x, b, &dy), gelu<double>(x, b, &dy));
}

// --- attention of one head
template <class T>
struct Attention {
  std::vector<T> o, dq, dk, dv;
  Attention(const Floats& q, const Floats& k, const Floats& v, const Floats& go, int64_t s,
            int64_t d, int64_t left)
      : o(s * d), dq(s * d), dk(s * d), dv(s * d) {
    const T scale = 1 / std::sqrt(T(d));
    for (int64_t i = 0; i < s; ++i) {
      const int64_t from = std::max<int64_t>(0, i - left);
      std::vector<T> p(i + 1), dp(i + 1);
      T top = -INFINITY, sum = 0, delta = 0;
      for (int64_t j = from; j <= i; ++j) {
        for (int64_t c = 0; c < d; ++c) p[j] += T(q[i * d + c]) * k[j * d + c] * scale;
        top = std::max(top, p[j]);
      }
      for (int64_t j = from; j <= i; ++j) sum += p[j] = std::exp(p[j] - top);
      for (int64_t j = from; j <= i; ++j) {
        p[j] /= sum;
        for (int64_t c = 0; c < d; ++c) {
          o[i * d + c] += p[j] * v[j * d + c];
          dv[j * d + c] += p[j] * go[i * d + c];
          dp[j] += T(go[i * d + c]) * v[j * d + c];
        }
        delta += p[j] * dp[j];
      }
      for (int64_t j = from; j <= i; ++j) {
        const T ds = p[j] * (dp[j] - delta) * scale;
        for (int64_t c = 0; c < d; ++c) {
          dq[i * d + c] += ds * k[j * d + c];
          dk[j * d + c] += ds * q[i * d + c];
        }
      }
    }
  }
};

void test_attention(int64_t s, int64_t d, int64_t left) {
  const Floats q = randn(s * d), k = randn(s * d), v = randn(s * d), go = randn(s * d);
  Floats o(s * d), lse(s), dq(s * d), dk(s * d), dv(s * d);
  const auto rows = [&](const Floats& x) { return AttentionRows<const void>{x.data(), 0, d, 0}; };
  const auto out = [&](Floats& x) { return AttentionRows<void>{x.data(), 0, d, 0}; };
  AttentionShape a{};
  a.batch = a.heads = a.kv_heads = 1, a.dim = d, a.queries = a.keys = s;
  a.left = left, a.scale = 1 / std::sqrt(float(d));
  attention_fwd({a, rows(q), rows(k), rows(v), out(o), lse.data()});
  attention_bwd(
      {a, rows(q), rows(k), rows(v), rows(o), rows(go), lse.data(), out(dq), out(dk), out(dv)});
  const Attention<float> plain(q, k, v, go, s, d, left);
  const Attention<double> truth(q, k, v, go, s, d, left);
  check("attention o", o, plain.o, truth.o);
  check("attention dq", dq, plain.dq, truth.dq);
  check("attention dk", dk, plain.dk, truth.dk);
  check("attention dv", dv, plain.dv, truth.dv);
}

// --- cross_entropy
template <class T>
struct CrossEntropy {
  std::vector<T> losses, dx;
  CrossEntropy(const Floats& x, const std::vector<int64_t>& target, size_t rows, size_t n)
      : losses(rows), dx(rows * n) {
    for (size_t t = 0; t < rows; ++t) {
      const float top = *std::max_element(&x[t * n], &x[t * n] + n);
      T sum = 0;
      for (size_t i = 0; i < n; ++i) sum += dx[t * n + i] = std::exp(T(x[t * n + i]) - top);
      for (size_t i = 0; i < n; ++i) dx[t * n + i] /= sum;
      dx[t * n + target[t]] -= 1;
      losses[t] = std::log(sum) - (T(x[t * n + target[t]]) - top);
    }
  }
};

void test_cross_entropy(int64_t rows, int64_t n) {
  const Floats x = randn(rows * n, 3), one{1.0f};
  std::vector<int64_t> target(rows);
  for (int64_t t = 0; t < rows; ++t) target[t] = (t * 37) % n;
  Floats losses(rows), shift(rows), sum(rows), dx(rows * n);
  CrossEntropyForward f{};
  f.input = x.data(), f.target = target.data(), f.losses = losses.data();
  f.shift = shift.data(), f.sum = sum.data();
  f.tokens = rows, f.classes = f.row_stride = n, f.ignore_index = -100;
  cross_entropy_fwd(f);
  CrossEntropyBackward g{};
  g.input = x.data(), g.target = target.data(), g.shift = shift.data(), g.sum = sum.data();
  g.dloss = one.data(), g.dinput = dx.data();
  g.tokens = rows, g.classes = g.row_stride = n, g.ignore_index = -100;
  cross_entropy_bwd(g);
  const CrossEntropy<float> plain(x, target, rows, n);
  const CrossEntropy<double> truth(x, target, rows, n);
  check("cross_entropy loss", losses, plain.losses, truth.losses);
  check("cross_entropy dx", dx, plain.dx, truth.dx);
}

}  // namespace

int main() {
  for (int64_t n : {5, 768}) test_layer_norm(67, n);
  for (int64_t n : {7, 384}) test_bias_gelu(67, n);
  for (int64_t left : {31, 1 << 20}) test_attention(300, 64, left), test_attention(67, 13, left);
  for (int64_t n : {7, 5000}) test_cross_entropy(33, n);
  std::printf(failures ? "%d FAILED\n" : "all within the policy\n", failures);
  return failures != 0;
}
