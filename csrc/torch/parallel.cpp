// The thread pool that csrc/cpu asks for is torch's.
#include "cpu/parallel.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace bigfast::cpu {

void run_tasks(int64_t tasks, void (*body)(int64_t, void*), void* context, bool backwards) {
  const int64_t threads = std::min<int64_t>(tasks, torch::stable::get_num_threads());
  if (threads <= 1) {
    for (int64_t i = 0; i < tasks; ++i) body(backwards ? tasks - 1 - i : i, context);
    return;
  }
  // Thread i begins with the i-th part of the tasks, so that the rows that an op leaves in a core's
  // cache are those that the next op reads there; who has finished helps with the other parts.
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t first = 0, end = 0;
  };
  std::vector<Part> parts(threads);
  for (int64_t i = 0; i < threads; ++i) {
    parts[i].next = parts[i].first = i * tasks / threads;
    parts[i].end = (i + 1) * tasks / threads;
  }
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t) noexcept {
    for (int64_t i = 0; i < threads; ++i) {
      Part& part = parts[(begin + i) % threads];
      for (int64_t task; (task = part.next.fetch_add(1, std::memory_order_relaxed)) < part.end;)
        body(backwards ? part.first + part.end - 1 - task : task, context);
    }
  });
}

}  // namespace bigfast::cpu
