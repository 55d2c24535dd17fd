#include "simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {
namespace {

constexpr size_t kStack = size_t{1} << 18;  // touched pages alone are memory

}  // namespace

#if defined(__x86_64__)
// Saves what a callee must keep and the stack pointer in *save, and takes up `to`.
extern "C" void simt_switch(void** save, void* to);
asm(R"(
.text
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
.type simt_enter, @function
simt_enter:
  movq %r12, %rdi
  callq *%r13
  ud2
.size simt_enter, .-simt_enter
)");
extern "C" void simt_enter();
#endif

Fiber::Fiber(void (*body)(void*), void* argument) : body_(body), argument_(argument) {
  void* mapped = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::runtime_error("simt: no memory for the stack of a thread");
  stack_ = static_cast<char*>(mapped);
  mprotect(stack_, 4096, PROT_NONE);  // an overflow is a fault
#if defined(__x86_64__)
  // As simt_switch leaves a stack: r15, r14, r13, r12, rbx, rbp, return address, which leaves it
  // aligned to 16 bytes.
  void** top = reinterpret_cast<void**>(stack_ + kStack) - 9;
  std::memset(top, 0, 9 * sizeof(void*));
  top[2] = reinterpret_cast<void*>(&Fiber::begin);
  top[3] = this;
  top[6] = reinterpret_cast<void*>(&simt_enter);
  inside_ = top;
#else
  getcontext(&inside_);
  inside_.uc_stack.ss_sp = stack_;
  inside_.uc_stack.ss_size = kStack;
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&inside_, reinterpret_cast<void (*)()>(+[](unsigned high, unsigned low) {
    begin(reinterpret_cast<Fiber*>(uintptr_t{high} << 32 | low));
  }),
              2, static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
#endif
}

Fiber::~Fiber() {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(stack_, kStack);  // a thread that was given up leaves its red zones
#endif
  munmap(stack_, kStack);
}

void Fiber::begin(Fiber* self) {
  self->arrived();
  self->body_(self->argument_);
}

// In the fiber, behind each switch to it.
void Fiber::arrived() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_size_);
#endif
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, stack_, kStack);
#endif
#if defined(__x86_64__)
  simt_switch(&outside_, inside_);
#else
  swapcontext(&outside_, &inside_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Fiber::suspend() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_stack_, caller_stack_, caller_size_);
#endif
#if defined(__x86_64__)
  simt_switch(&inside_, outside_);
#else
  swapcontext(&inside_, &outside_);
#endif
  arrived();
}

}  // namespace simt
