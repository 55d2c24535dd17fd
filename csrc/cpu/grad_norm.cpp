// sum g^2: fp32 lanes over runs of elements, runs in fp64 in order.
#include "cpu/grad_norm.h"

#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <class G>
double squares(const G* g, int64_t n) {
  constexpr int64_t kRun = 4096;
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = begin + kRun < n ? begin + kRun : n;
    F s[4] = {F(0.0f), F(0.0f), F(0.0f), F(0.0f)};
    int64_t i = begin;
    for (; i + 4 * F::W <= end; i += 4 * F::W)
      for (int k = 0; k < 4; ++k) {
        const F v = load(g + i + k * F::W);
        s[k] = fma(v, v, s[k]);
      }
    columns(end - i, [&](int64_t j, auto lanes) BIGFAST_LAMBDA {
      const F v = load(g + i + j, lanes);
      s[0] = fma(v, v, s[0]);
    });
    total += static_cast<double>(sum((s[0] + s[1]) + (s[2] + s[3])));
  }
  return total;
}

}  // namespace

void grad_norm(const GradNorm& a) noexcept {
  auto body = [&](int64_t task) {
    const GradNormTask& t = a.tasks[task];
    dispatch(t.dtype, [&](auto tag) {
      a.squares[task] = squares(static_cast<const decltype(tag)*>(t.grad), t.size);
    });
  };
  parallel_tasks(a.count, body);
}

}  // namespace bigfast::cpu::BIGFAST_ISA
