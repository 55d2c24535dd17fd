// Which instruction sets the library holds and which one runs.
//
// Every .cpp of this folder is compiled once per instruction set, with BIGFAST_ISA naming the
// namespace that its kernels go into. BIGFAST_KERNEL declares a kernel in each of these namespaces
// and a function of the same name, one level up, that calls the chosen one.
#pragma once

#include <cstdint>

namespace bigfast::cpu {

enum class Isa : int { portable, avx2, avx512, avx512_bf16 };

constexpr const char* isa_names[] = {"portable", "avx2", "avx512", "avx512_bf16"};

bool isa_supported(Isa isa);  // by this machine and this build
Isa isa_best();
Isa isa();  // the one in use: the best supported, until set_isa
void set_isa(Isa isa);

}  // namespace bigfast::cpu

#if defined(__x86_64__) || defined(_M_X64)
#define BIGFAST_KERNEL(name, Args)      \
  namespace portable {                  \
  void name(const Args&) noexcept;      \
  }                                     \
  namespace avx2 {                      \
  void name(const Args&) noexcept;      \
  }                                     \
  namespace avx512 {                    \
  void name(const Args&) noexcept;      \
  }                                     \
  namespace avx512_bf16 {               \
  void name(const Args&) noexcept;      \
  }                                     \
  inline void name(const Args& args) {  \
    switch (isa()) {                    \
      case Isa::avx512_bf16:            \
        return avx512_bf16::name(args); \
      case Isa::avx512:                 \
        return avx512::name(args);      \
      case Isa::avx2:                   \
        return avx2::name(args);        \
      case Isa::portable:               \
        return portable::name(args);    \
    }                                   \
  }
#else
#define BIGFAST_KERNEL(name, Args) \
  namespace portable {             \
  void name(const Args&) noexcept; \
  }                                \
  inline void name(const Args& args) { return portable::name(args); }
#endif
