// Launches of adamw.cuh.
#include "cuda/adamw.cuh"

namespace bigfast::cuda {

void adamw(const AdamW& a, const std::vector<StepGroup>& groups, void* stream) {
  for (const StepGroup& group : groups) {
    AdamW part = a;
    part.list.table.chunks += group.first_block;
    with_weight(group, [&]<class P, class W>(Type<P>, Type<W>) {
      with_type(group.grad, [&]<class G>(Type<G>) {
        launch(adamw_kernel<P, W, G>, dim3(group.blocks), dim3(kStepThreads), 0,
               static_cast<Stream>(stream), part);
      });
    });
  }
}

}  // namespace bigfast::cuda
