// v = x + bias;  y = v c(v), c as in gelu.inl. Backward: dx = dy (c + v c'); dbias = sum dx
//
// Rows are split into tasks by their number alone; each task has its own fp32 sum of dbias, and
// these are added by a tree.
#include "cpu/bias_gelu.h"

#include "cpu/gelu.inl"
#include "cpu/parallel.h"
#include "cpu/rows.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <class T, class Tanh>
void rows_fwd(const BiasGeluForward& a, const float* bias, int64_t begin, int64_t end) {
  const int64_t n = a.features;
  for (int64_t t = begin; t < end; ++t) {
    const T* x = static_cast<const T*>(a.x) + t * n;
    T* y = static_cast<T*>(a.y) + t * n;
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const F v = load(x + i, lanes) + load(bias + i, lanes);
      store(y + i, gelu<T>(v, Tanh{}), lanes);
    });
  }
}

// Exact: the type that dbias needs to be exact for.
template <class T, class Exact, class Tanh>
void rows_bwd(const BiasGeluBackward& a, const float* bias, int64_t begin, int64_t end,
              float* dbias) {
  const int64_t n = a.features;
  for (int64_t t = begin; t < end; ++t) {
    const T* dy = static_cast<const T*>(a.dy) + t * n;
    const T* x = static_cast<const T*>(a.x) + t * n;
    T* dx = static_cast<T*>(a.dx) + t * n;
    columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
      const Gate g = gelu_gate<Exact>(load(x + i, lanes) + load(bias + i, lanes), Tanh{});
      const F d = load(dy + i, lanes) * (g.c + g.slope);
      store(dx + i, d, lanes);
      store(dbias + i, load(dbias + i, lanes) + d, lanes);
    });
  }
}

// The bias in fp32: zeros where there is none.
void widen_bias(const void* bias, DType dtype, int64_t n, float* to) {
  if (bias)
    widen_row(bias, dtype, n, to);
  else
    std::memset(to, 0, n * sizeof(float));
}

}  // namespace

void bias_gelu_fwd(const BiasGeluForward& a) noexcept {
  const int64_t n = a.features, step = rows_per_task(a.tokens, n);
  Scratch<float> bias(n);
  widen_bias(a.bias, a.bias_dtype, n, bias);
  dispatch_gelu(a.dtype, a.tanh, [&](auto x, auto tanh) {
    auto body = [&](int64_t task) {
      const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
      rows_fwd<decltype(x), decltype(tanh)>(a, bias, begin, end);
    };
    parallel_tasks((a.tokens + step - 1) / step, body);
  });
}

void bias_gelu_bwd(const BiasGeluBackward& a) noexcept {
  const int64_t n = a.features, step = rows_per_task(a.tokens, n);
  const int64_t tasks = (a.tokens + step - 1) / step;
  Scratch<float> bias(n), partial((tasks + 1) * n);
  widen_bias(a.bias, a.bias_dtype, n, bias);
  std::memset(partial, 0, (tasks + 1) * n * sizeof(float));
  dispatch_gelu(a.dtype, a.tanh, [&](auto x, auto tanh) {
    auto body = [&](int64_t task) {
      const int64_t begin = task * step, end = begin + step < a.tokens ? begin + step : a.tokens;
      float* dbias = partial + (task + 1) * n;
      dispatch(a.dbias && a.bias_dtype == DType::f32 ? DType::f32 : a.dtype, [&](auto exact) {
        rows_bwd<decltype(x), decltype(exact), decltype(tanh)>(a, bias, begin, end, dbias);
      });
    };
    parallel_tasks(tasks, body);
  });
  if (!a.dbias) return;
  sum_partials(partial, tasks, n);
  narrow_row(partial, n, a.dbias, a.bias_dtype);
}

}  // namespace bigfast::cpu::BIGFAST_ISA
