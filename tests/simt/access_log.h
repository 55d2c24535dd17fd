// Who read and wrote each byte of a block's shared memory since the last barrier. Kernels compiled
// with -fsanitize=thread call __tsan_read4 and its like at every access: here these are our own
// (access_log.cpp), and tell the log. Without that flag the log is off and costs nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace simt {

// When something happened: accesses are ordered by a barrier of the block, or of their warp.
struct Moment {
  int thread = -1;
  int block_barriers = 0, warp_barriers = 0;
};

class AccessLog {
 public:
  struct Conflict {
    const char* what = nullptr;  // nullptr: none
    int other = 0;
  };
  explicit AccessLog(size_t bytes) : cells_(bytes) {}
  Conflict read(size_t begin, size_t bytes, Moment now);
  Conflict write(size_t begin, size_t bytes, Moment now);

 private:
  struct Cell {
    Moment written, read, read_by_another;
  };
  std::vector<Cell> cells_;
};

}  // namespace simt
