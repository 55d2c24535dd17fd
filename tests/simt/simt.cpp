#include "simt/simt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "simt/block.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

simt::Dim threadIdx, blockIdx, blockDim, gridDim;

namespace simt {
namespace {

constexpr size_t kGuard = 128;  // bytes before and behind an array; also its alignment
constexpr int kPoison = 0xFF;   // a NaN in every float type
const char kDynamic = 0;        // the tag of dynamic shared memory

const std::function<void()>* body = nullptr;
std::vector<std::unique_ptr<Thread>> threads;  // kept for the next block: stacks are dear
size_t count = 0;                              // of them in use
Thread* running = nullptr;
std::string failure;
std::vector<SharedArray> arrays;
int block_barriers = 0;
std::vector<int> warp_barriers;

std::string where(const Site& site) {
  std::string file = site.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line);
}

std::string who(int thread) {
  return "block " + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) + " thread " +
         std::to_string(thread);
}

std::string stands(const Thread& thread) {
  const std::string name = who(thread.index);
  if (thread.state == Thread::ended) return name + " has ended";
  if (thread.state == Thread::at_block_barrier)
    return name + " waits at the block barrier of " + where(thread.site);
  return name + " is in " + thread.function + " of " + where(thread.site);
}

void run_thread(void* argument) {
  Thread& thread = *static_cast<Thread*>(argument);
  for (;;) {
    (*body)();
    thread.state = Thread::ended;
    thread.fiber->suspend();
  }
}

void wait(Thread::State state, Site site, const char* function) {
  Thread& thread = *running;
  thread.state = state, thread.site = site, thread.function = function;
  thread.fiber->suspend();
}

void resume(Thread& thread) {
  running = &thread;
  threadIdx = Dim(thread.index, 0, 0);
  thread.fiber->resume();
  running = nullptr;
  if (!failure.empty()) {
    const std::string what = std::exchange(failure, {});
    throw std::runtime_error("simt: " + what);
  }
}

// All lanes stand at one function of the warp: it happens.
void complete(size_t warp) {
  Thread& first = *threads[warp * kLanes];
  void* mine[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const Thread& thread = *threads[warp * kLanes + lane];
    if (thread.state != Thread::in_warp || !(thread.site == first.site))
      give_up("lanes of a warp diverge: " + stands(first) + ", " + stands(thread));
    mine[lane] = thread.mine;
  }
  if (first.combine) first.combine(mine, first.site);
  if (first.orders) ++warp_barriers[warp];
  for (int lane = 0; lane < kLanes; ++lane) threads[warp * kLanes + lane]->state = Thread::ready;
}

// As far as it can.
void run_warp(size_t warp, bool reverse) {
  for (bool moved = true; moved;) {
    moved = false;
    for (int i = 0; i < kLanes; ++i) {
      Thread& thread = *threads[warp * kLanes + (reverse ? kLanes - 1 - i : i)];
      if (thread.state == Thread::ready) resume(thread);
    }
    for (int lane = 0; lane < kLanes && !moved; ++lane)
      moved = threads[warp * kLanes + lane]->state == Thread::in_warp;
    if (moved) complete(warp);
  }
}

// Guards are out of bounds for AddressSanitizer; without it they show what was written there.
void close_guards(const SharedArray& array) {
  std::memset(array.memory, kPoison, array.whole());
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(array.memory, kGuard);
  ASAN_POISON_MEMORY_REGION(array.begin() + array.bytes, array.whole() - kGuard - array.bytes);
#endif
}

void check_guards() {
#if !defined(__SANITIZE_ADDRESS__)
  for (const SharedArray& array : arrays)
    for (size_t i = 0; i < kGuard; ++i)
      for (const char* at : {array.memory + i, array.begin() + array.bytes + i})
        if (static_cast<unsigned char>(*at) != kPoison)
          give_up("block " + std::to_string(blockIdx.x) + " has written outside of an array of " +
                  std::to_string(array.bytes) + " bytes in shared memory, " +
                  std::to_string(at - array.begin()) + " bytes behind its begin");
#endif
}

void run_block(size_t dynamic_shared, bool reverse) {
  block_barriers = 0;
  warp_barriers.assign(count / kLanes, 0);
  if (dynamic_shared) static_shared(&kDynamic, dynamic_shared);
  for (size_t i = 0; i < count; ++i) {
    threads[i]->state = Thread::ready;
    threads[i]->groups.clear(), threads[i]->uncommitted.clear();
  }
  for (bool ended = false; !ended;) {
    const size_t warps = count / kLanes;
    for (size_t i = 0; i < warps; ++i) run_warp(reverse ? warps - 1 - i : i, reverse);
    Thread& first = *threads[0];
    for (size_t i = 1; i < count; ++i)
      if (threads[i]->state != first.state ||
          (first.state != Thread::ended && !(threads[i]->site == first.site)))
        give_up("a barrier that not all threads reach: " + stands(first) + ", " +
                stands(*threads[i]));
    ended = first.state == Thread::ended;
    ++block_barriers;
    for (size_t i = 0; i < count && !ended; ++i) threads[i]->state = Thread::ready;
  }
  check_guards();
}

void free_arrays() {
  for (SharedArray& array : arrays) {
#if defined(__SANITIZE_ADDRESS__)
    ASAN_UNPOISON_MEMORY_REGION(array.memory, array.whole());
#endif
    std::free(array.memory);
  }
  arrays.clear();
}

}  // namespace

void give_up(const std::string& what) {
  if (running == nullptr) throw std::runtime_error("simt: " + what);
  failure = what;
  running->fiber->suspend();
  std::abort();  // a thread that failed is not resumed
}

char* SharedArray::begin() const { return memory + kGuard; }
size_t SharedArray::whole() const { return (bytes + 3 * kGuard - 1) / kGuard * kGuard; }

Machine& machine() {
  static Machine played;
  return played;
}

extern "C" __attribute__((visibility("default"))) void simt_play(int capability,
                                                                 int multiprocessors,
                                                                 int shared_limit) {
  machine() = {capability, multiprocessors, shared_limit};
}

void run(Dim grid, Dim block, size_t dynamic_shared, const std::function<void()>& thread) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  if (block.x % kLanes != 0 || block.x == 0 || block.x > 1024 || block.y != 1 || block.z != 1)
    give_up("blocks have a multiple of 32 threads, 1024 at most, in one dimension");
  if (dynamic_shared > static_cast<size_t>(machine().shared_limit))
    give_up("too much shared memory: " + std::to_string(dynamic_shared) + " bytes");
  body = &thread;
  count = block.x;
  while (threads.size() < count) {
    auto made = std::make_unique<Thread>();
    made->index = static_cast<int>(threads.size());
    made->fiber = std::make_unique<Fiber>(run_thread, made.get());
    threads.push_back(std::move(made));
  }
  blockDim = block, gridDim = grid;
  try {
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
          blockIdx = Dim(x, y, z);
          run_block(dynamic_shared, (x + y + z) % 2 == 1);
          free_arrays();
        }
  } catch (...) {
    free_arrays();
    threads.clear();  // some stand in the middle of the kernel
    throw;
  }
}

void fail(const std::string& what, Site site) {
  give_up(where(site) + ": " + what + (running ? ", " + who(running->index) : ""));
}

void block_barrier(Site site) { wait(Thread::at_block_barrier, site, "block_barrier"); }

void warp_barrier(Site site) {
  running->orders = true;
  running->combine = nullptr;
  wait(Thread::in_warp, site, "warp_barrier");
  running->orders = false;
}

void meet(const char* function, Site site, void* mine, void (*combine)(void* const*, Site)) {
  running->mine = mine;
  running->combine = combine;
  wait(Thread::in_warp, site, function);
}

// The old bytes are gone at once: a reader that has not finished sees NaN.
void copy_async(void* shared, const void* global, Site site) {
  check_aligned(shared, 16, "copy_async to", site);
  if (global) check_aligned(global, 16, "copy_async from", site);
  if (!is_shared(shared, 16)) fail("copy_async to what is no shared memory", site);
  Copy copy{shared, {}};
  if (global) std::memcpy(copy.bytes, global, 16);
  log_access(shared, 16, true, nullptr);
  std::memset(shared, kPoison, 16);
  running->uncommitted.push_back(copy);
}

void commit_async() {
  running->groups.push_back(std::move(running->uncommitted));
  running->uncommitted.clear();
}

void wait_async(int pending) {
  auto& groups = running->groups;
  while (groups.size() > static_cast<size_t>(pending)) {
    for (const Copy& copy : groups.front()) {
      log_access(copy.shared, 16, true, nullptr);
      std::memcpy(copy.shared, copy.bytes, 16);
    }
    groups.erase(groups.begin());
  }
}

void* static_shared(const void* tag, size_t bytes) {
  for (const SharedArray& array : arrays)
    if (array.tag == tag) return array.begin();
  SharedArray made{tag, bytes, nullptr, nullptr};
  made.memory = static_cast<char*>(std::aligned_alloc(kGuard, made.whole()));
  close_guards(made);
#if defined(SIMT_LOG_ACCESSES)
  made.log = std::make_unique<AccessLog>(bytes);
#endif
  arrays.push_back(std::move(made));
  return arrays.back().begin();
}

void* dynamic_shared() {
  for (const SharedArray& array : arrays)
    if (array.tag == &kDynamic) return array.begin();
  give_up("the launch gave no dynamic shared memory, " + who(running->index));
}

bool is_shared(const void* at, size_t bytes) {
  const char* from = static_cast<const char*>(at);
  for (const SharedArray& array : arrays)
    if (from >= array.begin() && from + bytes <= array.begin() + array.bytes) return true;
  return false;
}

void check_aligned(const void* at, size_t bytes, const char* what, Site site) {
  if (reinterpret_cast<uintptr_t>(at) % bytes != 0)
    fail(std::string(what) + " " + std::to_string(bytes) +
             " bytes at an address that is no multiple of that",
         site);
}

// `code`: the address behind the access, for a debugger; the wrappers have none.
void log_access(const void* at, size_t bytes, bool write, const void* code) {
  if (running == nullptr) return;
  const char* from = static_cast<const char*>(at);
  for (SharedArray& array : arrays) {
    if (!array.log) return;
    if (from < array.memory || from >= array.begin() + array.bytes + kGuard) continue;
    if (from < array.begin() || from + bytes > array.begin() + array.bytes)
      give_up("access outside of an array in shared memory, " + who(running->index));
    const size_t begin = from - array.begin();
    const Moment now{running->index, block_barriers, warp_barriers[running->index / kLanes]};
    const auto conflict =
        write ? array.log->write(begin, bytes, now) : array.log->read(begin, bytes, now);
    if (conflict.what) {
      char address[32];
      std::snprintf(address, sizeof(address), "%p", code);
      give_up(std::string(conflict.what) +
              (conflict.other >= 0 ? " of thread " + std::to_string(conflict.other) : "") +
              ": shared memory, byte " + std::to_string(begin) + " of " +
              std::to_string(array.bytes) + ", " + who(running->index) + ", code at " + address);
    }
  }
}

void log_read(const void* at, size_t bytes) { log_access(at, bytes, false, nullptr); }

}  // namespace simt
