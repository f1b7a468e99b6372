// Subnormal numbers cost tens of cycles an operation on many CPUs, and a network that has converged
// is full of them. A program flushes them to zero while it runs, on every thread that works for it.
#pragma once

#include <cstdint>

namespace chainrule {

// The calling thread's floating-point control register.
uint64_t float_mode() noexcept;
void set_float_mode(uint64_t mode) noexcept;

// Flushes subnormals while it lives, then restores what was.
class FlushSubnormals {
 public:
  FlushSubnormals() noexcept;
  ~FlushSubnormals() { set_float_mode(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  uint64_t before_;
};

}  // namespace chainrule
