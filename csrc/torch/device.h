// The device that a binding is compiled for. One that says BIGFAST_KEY is compiled for the CPU,
// into bigfast/_cpu.so; for CUDA (BIGFAST_CUDA), into bigfast/_cuda.so; and, in tests, for CUDA's
// kernels in the SIMT emulator (BIGFAST_EMULATED), on CPU tensors, under another BIGFAST_NAMESPACE.
// Those of CUDA alone are in csrc/torch/cuda.
#pragma once

#include "torch/tensor.h"

#if defined(BIGFAST_CUDA) && !defined(BIGFAST_EMULATED)
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#endif

namespace bigfast {

#if defined(BIGFAST_CUDA)
namespace cuda {}
namespace device = cuda;

// Makes the device of a tensor the current one while this lives, for torch and for the CUDA runtime
// in this library, which is another one than torch's; its current stream.
#if defined(BIGFAST_EMULATED)
struct Current {
  explicit Current(const Tensor&) {}
  void* stream() const { return nullptr; }
};
#else
class Current {
 public:
  explicit Current(const Tensor& on) : index_(on.get_device_index()), guard_(index_) {
    STD_TORCH_CHECK(cudaSetDevice(index_) == cudaSuccess, "cannot use GPU ", index_);
  }
  void* stream() const {
    void* found = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index_, &found));
    return found;
  }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
};
#endif

// Launches on the device and the current stream of `on`.
template <class Args>
void run(void (*launch)(const Args&, void* stream), const Args& args, const Tensor& on) {
  const Current current(on);
  launch(args, current.stream());
}
#else
namespace cpu {}
namespace device = cpu;

template <class Args>
void run(void (*kernel)(const Args&), const Args& args, const Tensor&) {
  kernel(args);
}
#endif

}  // namespace bigfast
