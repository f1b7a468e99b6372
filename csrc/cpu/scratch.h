// Working memory.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace chainrule {

struct FreeMemory {
  void operator()(void* memory) const noexcept { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<void, FreeMemory>;

// At least `bytes` bytes, aligned to a cache line. Much of it lies on pages of 2 MiB where the
// system gives them. Throws std::bad_alloc.
AlignedMemory allocate(std::size_t bytes);

// The calling thread's own, which grows to the largest request and is used again: valid until its
// next call. Throws std::bad_alloc, and is then as it was.
//
// With CHAINRULE_FENCE in the environment, for tests: it ends at a forbidden page, so what goes too
// far ends the process, and holds NaN, so what reads before it writes shows.
void* scratch(std::size_t bytes);

}  // namespace chainrule
