// The thread pool that csrc/cpu asks for is torch's.
#include "cpu/parallel.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>

namespace bigfast::cpu {

void run_tasks(int64_t tasks, void (*body)(int64_t, void*), void* context) {
  const int64_t threads = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  if (threads <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, context);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) noexcept {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
      body(task, context);
  });
}

}  // namespace bigfast::cpu
