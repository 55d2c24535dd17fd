// A SIMT machine on the CPU: a block of threads is run by fibers, one per thread, and the blocks of
// a grid one after the other. What a GPU hides is an error here, with file, line, block and thread.
//
// Within a block one warp, and in it one lane, runs as far as it can before the next begins: to a
// barrier, to a function of the whole warp, to its end. Round-robin would hide a missing barrier.
// Every other block runs its warps and lanes in reverse order, so that neither order hides one.
// Shared memory is fresh for each block and full of NaN (all bits set), and asynchronous copies
// land when they are waited for, as late as a GPU may let them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace simt {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
  Dim() = default;
  Dim(size_t x, size_t y = 1, size_t z = 1)
      : x(static_cast<unsigned>(x)), y(static_cast<unsigned>(y)), z(static_cast<unsigned>(z)) {}
};

// Where in the kernel's source a thread is.
struct Site {
  const char* file;
  int line;
  bool operator==(const Site&) const = default;
};

constexpr int kLanes = 32;

// The GPU that is played; tests change it, from Python by simt_play().
struct Machine {
  int capability = 80;
  int multiprocessors = 2;
  int shared_limit = 99 * 1024;
};
Machine& machine();

// Runs `thread` once per thread of the grid. Throws std::runtime_error for what fail() was told.
void run(Dim grid, Dim block, size_t dynamic_shared, const std::function<void()>& thread);

// For threads:
[[noreturn]] void fail(const std::string& what, Site site);
// All threads of the block, or all lanes of the warp, arrive at one site before any goes on.
void block_barrier(Site site);
void warp_barrier(Site site);
// As warp_barrier; the last to arrive calls combine on what each lane has brought, by lane. Does
// not order accesses to shared memory.
void meet(const char* function, Site site, void* mine, void (*combine)(void* const* lanes, Site));
// 16 bytes that arrive when the group that they are committed to is waited for; null: zeros.
void copy_async(void* shared, const void* global, Site site);
void commit_async();
void wait_async(int pending);
void* dynamic_shared();
// A block's array of its own, by a tag that stands for its declaration.
void* static_shared(const void* tag, size_t bytes);
bool is_shared(const void* at, size_t bytes);
// A read that is no access of the kernel's own code.
void log_read(const void* at, size_t bytes);
void check_aligned(const void* at, size_t bytes, const char* what, Site site);

template <class Mine>
void meet(const char* function, Site site, Mine& mine, void (*combine)(void* const*, Site)) {
  meet(function, site, static_cast<void*>(&mine), combine);
}

}  // namespace simt

using dim3 = simt::Dim;
// Those of the thread that runs.
extern simt::Dim threadIdx, blockIdx, blockDim, gridDim;
