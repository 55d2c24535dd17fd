// cross_entropy on the CPU; the rows are in cross_entropy.inl.
#include "cpu/cross_entropy.inl"

namespace bigfast::cpu::BIGFAST_ISA {

void cross_entropy_fwd(const CrossEntropyForward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using X = decltype(tag);
    parallel_rows(a.tokens, a.classes, [&](int64_t t) {
      if (a.target[t] == a.ignore_index) {
        a.losses[t] = a.shift[t] = a.sum[t] = 0.0f;
        return;
      }
      const Logits<X, false> row{static_cast<const X*>(a.input) + t * a.row_stride, nullptr};
      const RowStats stats = row_stats(row, a.classes, a.terms);
      a.losses[t] = row_loss(row.one(a.target[t]), a.classes, stats, a.terms);
      a.shift[t] = stats.shift;
      a.sum[t] = stats.sum;
    });
  });
}

void cross_entropy_bwd(const CrossEntropyBackward& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using X = decltype(tag);
    parallel_rows(a.tokens, a.classes, [&](int64_t t) {
      X* dx = static_cast<X*>(a.dinput) + t * a.classes;
      if (a.target[t] == a.ignore_index) {
        std::memset(dx, 0, a.classes * sizeof(X));
        return;
      }
      const Logits<X, false> row{static_cast<const X*>(a.input) + t * a.row_stride, nullptr};
      row_gradient(row, a.classes, a.target[t], {a.shift[t], a.sum[t]}, a.terms,
                   a.dloss[t * a.dloss_step], dx);
    });
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
