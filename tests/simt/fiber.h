// Stacks of their own within one thread of the operating system. Switches are hand-written on
// x86-64 (ucontext asks the kernel for the signal mask each time: 0.4 us), ucontext elsewhere, and
// AddressSanitizer is told of each.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

class Fiber {
 public:
  // `body(argument)` runs at the first resume(), and must end in a suspend() without return.
  Fiber(void (*body)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  void resume();   // called outside: runs the fiber until it suspends
  void suspend();  // called inside: back to who resumed

 private:
  static void begin(Fiber* self);
  void arrived();

  void (*body_)(void*);
  void* argument_;
  char* stack_;
  const void* caller_stack_ = nullptr;
  size_t caller_size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's, while others run
#if defined(__x86_64__)
  void *inside_ = nullptr, *outside_ = nullptr;
#else
  ucontext_t inside_, outside_;
#endif
};

}  // namespace simt
