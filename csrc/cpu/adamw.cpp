// g = scale grad;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
// p = decay p - step_size m / (sqrt(v) correction + eps)
//
// Bound by memory: all is read once and written once, 28 bytes per fp32 parameter. What is written
// was read just before, so that non-temporal stores would save nothing.
#include "cpu/adamw.h"

#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <class P, class G, bool kMaster>
void update(const AdamW& a, const AdamWTensor& t, int64_t begin, int64_t n) {
  P* param = static_cast<P*>(t.param) + begin;
  const G* grad = static_cast<const G*>(t.grad) + begin;
  float *m = t.exp_avg + begin, *v = t.exp_avg_sq + begin;
  float* master = kMaster ? t.master + begin : nullptr;
  const F scale(a.grad_scale), decay(a.decay), rate1(a.rate1), beta2(a.beta2), rate2(a.rate2);
  const F step_size(a.step_size), correction(a.correction), eps(a.eps);
  columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
    const F g = load(grad + i, lanes) * scale;
    const F old = load(m + i, lanes);
    const F mi = fma(rate1, g - old, old);
    const F vi = fma(beta2, load(v + i, lanes), rate2 * g * g);
    F p;
    if constexpr (kMaster)
      p = load(master + i, lanes);
    else
      p = load(param + i, lanes);
    p = p * decay - step_size * mi / fma(sqrt(vi), correction, eps);
    store(m + i, mi, lanes);
    store(v + i, vi, lanes);
    if constexpr (kMaster) store(master + i, p, lanes);
    store(param + i, p, lanes);
  });
}

}  // namespace

void adamw(const AdamW& a) noexcept {
  auto body = [&](int64_t task) {
    int64_t low = 0, high = a.count - 1;  // the last tensor that starts at or before this task
    while (low < high) {
      const int64_t middle = (low + high + 1) / 2;
      if (a.tensors[middle].first_task <= task)
        low = middle;
      else
        high = middle - 1;
    }
    const AdamWTensor& t = a.tensors[low];
    const int64_t begin = (task - t.first_task) * adamw_task;
    const int64_t n = t.size - begin < adamw_task ? t.size - begin : adamw_task;
    dispatch(t.param_dtype, [&](auto p) {
      dispatch(t.grad_dtype, [&](auto g) {
        t.master ? update<decltype(p), decltype(g), true>(a, t, begin, n)
                 : update<decltype(p), decltype(g), false>(a, t, begin, n);
      });
    });
  };
  parallel_tasks(a.tasks, body);
}

}  // namespace bigfast::cpu::BIGFAST_ISA
