// What linear_cross_entropy does between its products, on the CPU: losses of a chunk of logits,
// their gradient written over them, its column sums; and the sum of weight gradients.
//
// dbias adds what is stored, column by column, by fours of rows in their order.
#include "cpu/cross_entropy.inl"

namespace bigfast::cpu::BIGFAST_ISA {
namespace {

template <class X, bool kBias>
void chunk_rows(const LinearCrossEntropyChunk& a) {
  parallel_rows(a.tokens, a.classes, [&](int64_t t) {
    X* x = static_cast<X*>(a.logits) + t * a.classes;
    const Logits<X, kBias> row{x, a.bias};
    const RowStats stats = row_stats(row, a.classes, a.terms);
    a.losses[t] = row_loss(row.one(a.target[t]), a.classes, stats, a.terms);
    if (a.gradient)
      row_gradient(row, a.classes, a.target[t], stats, a.terms, a.scale[t * a.scale_step], x);
  });
}

template <class X>
void add_columns(const LinearCrossEntropyChunk& a) {
  constexpr int64_t kColumns = 512;
  auto body = [&](int64_t task) {
    const int64_t begin = task * kColumns;
    const int64_t n = begin + kColumns < a.classes ? kColumns : a.classes - begin;
    float total[kColumns] = {};
    const X* x = static_cast<const X*>(a.logits) + begin;
    int64_t t = 0;
    for (; t + 4 <= a.tokens; t += 4, x += 4 * a.classes)
      columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
        const F low = load(x + i, lanes) + load(x + a.classes + i, lanes);
        const F high = load(x + 2 * a.classes + i, lanes) + load(x + 3 * a.classes + i, lanes);
        store(total + i, load(total + i, lanes) + (low + high), lanes);
      });
    for (; t < a.tokens; ++t, x += a.classes)
      columns(n, [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
        store(total + i, load(total + i, lanes) + load(x + i, lanes), lanes);
      });
    for (int64_t i = 0; i < n; ++i) a.dbias[begin + i] += total[i];
  };
  parallel_tasks((a.classes + kColumns - 1) / kColumns, body);
}

}  // namespace

void linear_cross_entropy_chunk(const LinearCrossEntropyChunk& a) noexcept {
  dispatch(a.dtype, [&](auto tag) {
    using X = decltype(tag);
    a.bias ? chunk_rows<X, true>(a) : chunk_rows<X, false>(a);
    if (a.dbias) add_columns<X>(a);
  });
}

void add_into(const AddInto& a) noexcept {
  constexpr int64_t kElements = 1 << 15;
  dispatch(a.out_dtype, [&](auto tag) {
    using Out = decltype(tag);
    auto body = [&](int64_t task) {
      const int64_t begin = task * kElements;
      columns(begin + kElements < a.size ? kElements : a.size - begin,
              [&](int64_t i, auto lanes) BIGFAST_LAMBDA {
                const F v = load(a.total + begin + i, lanes) + load(a.part + begin + i, lanes);
                store(static_cast<Out*>(a.out) + begin + i, v, lanes);
              });
    };
    parallel_tasks((a.size + kElements - 1) / kElements, body);
  });
}

}  // namespace bigfast::cpu::BIGFAST_ISA
