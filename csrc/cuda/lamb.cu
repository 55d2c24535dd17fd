// Launches of lamb.cuh.
#include "cuda/lamb.cuh"

namespace bigfast::cuda {

void lamb(const Lamb& a, const std::vector<StepGroup>& groups, void* stream) {
  const dim3 threads(kStepThreads);
  const auto part = [&](const StepGroup& group) {
    Lamb own = a;
    own.list.table.chunks += group.first_block;
    own.sums += 2 * group.first_block;
    return own;
  };
  const auto on = static_cast<Stream>(stream);
  for (const StepGroup& group : groups) {
    with_weight(group, [&]<class P, class W>(Type<P>, Type<W>) {
      with_type(group.grad, [&]<class G>(Type<G>) {
        launch(lamb_moments_kernel<W, G>, dim3(group.blocks), threads, 0, on, part(group));
      });
    });
  }
  if (a.list.table.count > 0)
    launch(lamb_rates_kernel, dim3(a.list.table.count), threads, 0, on, a);
  for (const StepGroup& group : groups) {
    with_weight(group, [&]<class P, class W>(Type<P>, Type<W>) {
      launch(lamb_step_kernel<P, W>, dim3(group.blocks), threads, 0, on, part(group));
    });
  }
}

}  // namespace bigfast::cuda
