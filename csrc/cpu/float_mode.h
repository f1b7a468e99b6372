// The floating-point mode of a thread. Subnormal numbers cost tens of cycles per operation on many
// CPUs, and a converged network has many of them. A replayed program flushes them to zero on every
// thread that runs it.
#pragma once

#include <cstdint>

namespace chainrule {

// The floating-point control register of the calling thread.
uint64_t float_mode() noexcept;
void set_float_mode(uint64_t mode) noexcept;

// Flushes subnormals to zero in its scope. The destructor restores the previous mode.
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
