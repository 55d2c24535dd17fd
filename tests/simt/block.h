// The block that runs at present; what simt.cpp keeps of it and the access log asks about.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "simt/access_log.h"
#include "simt/fiber.h"
#include "simt/simt.h"

namespace simt {

struct Copy {
  void* shared;
  char bytes[16];
};

struct Thread {
  enum State { ready, at_block_barrier, in_warp, ended };
  std::unique_ptr<Fiber> fiber;
  int index = 0;
  State state = ended;
  Site site{};
  const char* function = "";
  void* mine = nullptr;
  void (*combine)(void* const*, Site) = nullptr;
  bool orders = false;  // shared memory: warp_barrier
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> uncommitted;
};

// An array in shared memory between two guards; where the access log is on, with a log.
struct SharedArray {
  const void* tag;
  size_t bytes;
  char* memory;  // guard, array, guard
  std::unique_ptr<AccessLog> log;
  char* begin() const;
  size_t whole() const;  // bytes with both guards
};

// Ends the launch with an error; in a thread, with the kernel on the stack: a place for
// breakpoints.
[[noreturn]] void give_up(const std::string& what);
void log_access(const void* at, size_t bytes, bool write, const void* code);

}  // namespace simt
