#include "simt/access_log.h"

#include "simt/block.h"

namespace simt {
namespace {

bool ordered(const Moment& before, const Moment& now) {
  return before.thread < 0 || before.thread == now.thread ||
         before.block_barriers != now.block_barriers ||
         (before.thread / kLanes == now.thread / kLanes &&
          before.warp_barriers != now.warp_barriers);
}

}  // namespace

AccessLog::Conflict AccessLog::read(size_t begin, size_t bytes, Moment now) {
  Conflict found;
  for (size_t i = begin; i < begin + bytes; ++i) {
    Cell& cell = cells_[i];
    if (cell.written.thread < 0) return {"read of what nobody has written", -1};
    if (!ordered(cell.written, now))
      found = {"read without a barrier behind the write", cell.written.thread};
    if (cell.read.thread != now.thread) cell.read_by_another = cell.read;
    cell.read = now;
  }
  return found;
}

AccessLog::Conflict AccessLog::write(size_t begin, size_t bytes, Moment now) {
  Conflict found;
  for (size_t i = begin; i < begin + bytes; ++i) {
    Cell& cell = cells_[i];
    for (const Moment& read : {cell.read, cell.read_by_another})
      if (!ordered(read, now)) found = {"write without a barrier behind the read", read.thread};
    if (!ordered(cell.written, now))
      found = {"write without a barrier behind the write", cell.written.thread};
    cell.written = now;
  }
  return found;
}

}  // namespace simt

// What -fsanitize=thread calls; libtsan is not linked.
#define SIMT_ACCESS(bytes)                                           \
  void __tsan_read##bytes(const void* at) {                          \
    simt::log_access(at, bytes, false, __builtin_return_address(0)); \
  }                                                                  \
  void __tsan_write##bytes(const void* at) {                         \
    simt::log_access(at, bytes, true, __builtin_return_address(0));  \
  }                                                                  \
  void __tsan_unaligned_read##bytes(const void* at) {                \
    simt::log_access(at, bytes, false, __builtin_return_address(0)); \
  }                                                                  \
  void __tsan_unaligned_write##bytes(const void* at) {               \
    simt::log_access(at, bytes, true, __builtin_return_address(0));  \
  }
extern "C" {
SIMT_ACCESS(1)
SIMT_ACCESS(2)
SIMT_ACCESS(4)
SIMT_ACCESS(8)
SIMT_ACCESS(16)
void __tsan_read_range(const void* at, size_t bytes) {
  simt::log_access(at, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(const void* at, size_t bytes) {
  simt::log_access(at, bytes, true, __builtin_return_address(0));
}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
char __tsan_atomic8_load(const volatile char* at, int) { return *at; }
}
