// Which CUDA this library holds, and which the driver serves: bigfast/ops/library.py compares.
#include <cuda_runtime_api.h>

#include <tuple>

#include "torch/tensor.h"

namespace bigfast {
namespace {

// 13000 is CUDA 13.0; a driver that is not there is 0.
std::tuple<int64_t, int64_t> cuda_versions() {
  int runtime = 0, driver = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  return {runtime, driver};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(bigfast, m) { m.def("cuda_versions() -> (int runtime, int driver)"); }
STABLE_TORCH_LIBRARY_IMPL(bigfast, CompositeExplicitAutograd, m) {
  m.impl("cuda_versions", TORCH_BOX(&cuda_versions));
}

}  // namespace bigfast
