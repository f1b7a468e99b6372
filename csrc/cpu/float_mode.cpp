#include "cpu/float_mode.h"

namespace chainrule {

#if defined(__x86_64__)

namespace {
constexpr uint32_t flush_results = 1u << 15, flush_operands = 1u << 6;
}

uint64_t float_mode() noexcept { return __builtin_ia32_stmxcsr(); }
void set_float_mode(uint64_t mode) noexcept { __builtin_ia32_ldmxcsr(static_cast<uint32_t>(mode)); }
FlushSubnormals::FlushSubnormals() noexcept : before_(float_mode()) {
  set_float_mode(before_ | flush_results | flush_operands);
}

#elif defined(__aarch64__)

uint64_t float_mode() noexcept {
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_float_mode(uint64_t mode) noexcept { asm volatile("msr fpcr, %0" : : "r"(mode)); }
FlushSubnormals::FlushSubnormals() noexcept : before_(float_mode()) {
  set_float_mode(before_ | uint64_t{1} << 24);
}

#else

uint64_t float_mode() noexcept { return 0; }
void set_float_mode(uint64_t) noexcept {}
FlushSubnormals::FlushSubnormals() noexcept : before_(0) {}

#endif

}  // namespace chainrule
