// What the tests of kernels without torch share: random numbers, the tolerance policy, and the
// norm, as kernels.cpp explains.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace {

using Floats = std::vector<float>;

std::mt19937 generator(7);
int failures = 0;

Floats randn(size_t n, float scale = 1.0f) {
  std::normal_distribution<float> draw;
  Floats x(n);
  for (float& v : x) v = scale * draw(generator);
  return x;
}

// The policy: at most twice plain's error and half a unit in the last place of the largest element.
template <class P, class T>
void check(const std::string& what, const Floats& ours, const P& plain, const T& truth) {
  double worst = 0, allowed = 0, size = 0;
  bool finite = ours.size() == truth.size();
  for (size_t i = 0; finite && i < truth.size(); ++i) {
    finite = std::isfinite(ours[i]);
    worst = std::max(worst, std::abs(ours[i] - double(truth[i])));
    allowed = std::max(allowed, 2 * std::abs(double(plain[i]) - double(truth[i])));
    size = std::max(size, std::abs(double(truth[i])));
  }
  allowed += size * std::ldexp(1.0, -24);
  const bool ok = finite && worst <= allowed;
  std::printf("%-4s %-28s error %.2e, allowed %.2e\n", ok ? "ok" : "FAIL", what.c_str(), worst,
              allowed);
  failures += !ok;
}

// --- layer_norm with a residual
template <class T>
struct Norm {
  std::vector<T> y, dx, dweight, dbias;
  Norm(const Floats& x, const Floats& residual, const Floats& w, const Floats& b, const Floats& dy,
       size_t rows, size_t n)
      : y(rows * n), dx(rows * n), dweight(n), dbias(n) {
    for (size_t t = 0; t < rows; ++t) {
      std::vector<T> r(n), h(n), g(n);
      T mean = 0, square = 0, avg_g = 0, avg_gh = 0;
      for (size_t i = 0; i < n; ++i) r[i] = T(x[t * n + i] + residual[t * n + i]);
      for (T v : r) mean += v / T(n);
      for (T v : r) square += (v - mean) * (v - mean) / T(n);
      const T rstd = 1 / std::sqrt(square + T(1e-5));
      for (size_t i = 0; i < n; ++i) {
        h[i] = (r[i] - mean) * rstd;
        y[t * n + i] = h[i] * w[i] + b[i];
        g[i] = T(dy[t * n + i]) * w[i];
        avg_g += g[i] / T(n);
        avg_gh += g[i] * h[i] / T(n);
        dweight[i] += T(dy[t * n + i]) * h[i];
        dbias[i] += T(dy[t * n + i]);
      }
      for (size_t i = 0; i < n; ++i) dx[t * n + i] = rstd * (g[i] - avg_g - h[i] * avg_gh);
    }
  }
};

}  // namespace
