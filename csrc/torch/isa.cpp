// The choice of the instruction set, and the ops through which Python reads and sets it.
#include "cpu/isa.h"

#include <string>

#include "torch/tensor.h"

namespace bigfast::cpu {
namespace {

Isa& chosen() {
  static Isa isa = isa_best();
  return isa;
}

}  // namespace

bool isa_supported(Isa isa) {
#if defined(__x86_64__) || defined(_M_X64)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case Isa::portable:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512_bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
#else
  return isa == Isa::portable;
#endif
}

Isa isa_best() {
  for (Isa isa : {Isa::avx512_bf16, Isa::avx512, Isa::avx2})
    if (isa_supported(isa)) return isa;
  return Isa::portable;
}

Isa isa() { return chosen(); }
void set_isa(Isa isa) { chosen() = isa; }

}  // namespace bigfast::cpu

namespace bigfast {
namespace {

std::string cpu_isa() { return cpu::isa_names[static_cast<int>(cpu::isa())]; }

// Space-separated, best last.
std::string cpu_isas() {
  std::string names;
  for (int i = 0; i < 4; ++i)
    if (cpu::isa_supported(static_cast<cpu::Isa>(i))) names.append(cpu::isa_names[i]).append(" ");
  names.pop_back();
  return names;
}

void set_cpu_isa(std::string name) {
  for (int i = 0; i < 4; ++i) {
    const auto isa = static_cast<cpu::Isa>(i);
    if (name == cpu::isa_names[i] && cpu::isa_supported(isa)) return cpu::set_isa(isa);
  }
  STD_TORCH_CHECK(false, "instruction set '", name, "' is not one of: ", cpu_isas());
}

}  // namespace

// These take no tensor, so no device's key would ever be picked for them.
STABLE_TORCH_LIBRARY_IMPL(bigfast, CompositeExplicitAutograd, m) {
  m.impl("cpu_isa", TORCH_BOX(&cpu_isa));
  m.impl("cpu_isas", TORCH_BOX(&cpu_isas));
  m.impl("set_cpu_isa", TORCH_BOX(&set_cpu_isa));
}

}  // namespace bigfast
