// Working memory of the calling thread: grows to the largest request and is used again.
#pragma once

#include <cstddef>

namespace chainrule {

// At least `bytes` bytes, aligned to a cache line, valid until this thread's next call.
// Throws std::bad_alloc, and is then as it was.
void* scratch(std::size_t bytes);

}  // namespace chainrule
