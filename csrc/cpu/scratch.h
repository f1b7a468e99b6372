// Scratch memory for kernels.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace chainrule {

struct FreeMemory {
  void operator()(void* memory) const noexcept { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<void, FreeMemory>;

// Returns at least `bytes` bytes, aligned to a cache line. Large blocks use pages of 2 MiB if the
// system provides them. Throws std::bad_alloc.
AlignedMemory allocate(std::size_t bytes);

// Returns the calling thread's scratch memory, which grows to the largest request and is reused. It
// is valid until the thread's next call. If it throws std::bad_alloc, the memory stays unchanged.
//
// The environment variable CHAINRULE_FENCE is for tests. If it is set, the memory ends at a
// protected page, so an access past the end ends the process. The memory is filled with NaN, so a
// read before a write changes the result.
void* scratch(std::size_t bytes);

// Hides the calling thread's scratch memory in its scope. A signal handler that runs during a call
// may make calls, which must use other memory.
class HiddenScratch {
 public:
  HiddenScratch() noexcept;
  ~HiddenScratch();
  HiddenScratch(const HiddenScratch&) = delete;
  HiddenScratch& operator=(const HiddenScratch&) = delete;

 private:
  AlignedMemory memory_;
  std::size_t bytes_;
};

}  // namespace chainrule
