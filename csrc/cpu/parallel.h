// Tasks on torch's own threads (never a second OpenMP); the kernels see no torch.
#pragma once

#include <cstdint>

namespace bigfast::cpu {

// Calls body(task, context) for every task in [0, tasks). Threads take tasks one by one, so uneven
// tasks balance; which thread runs a task must not change its result. Bodies do not throw. Each
// thread has its own part of the tasks to begin with, and walks backwards through it if so asked:
// then what it touched last, in an earlier call of as many tasks, comes first.
// Defined in csrc/torch/parallel.cpp.
void run_tasks(int64_t tasks, void (*body)(int64_t, void*), void* context, bool backwards);

template <class F>
inline void parallel_tasks(int64_t tasks, F& f, bool backwards = false) {
  auto body = [](int64_t task, void* context) { (*static_cast<F*>(context))(task); };
  run_tasks(tasks, body, &f, backwards);
}

}  // namespace bigfast::cpu
