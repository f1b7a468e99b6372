#include "cpu/scratch.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <utility>

namespace chainrule {
namespace {

// Clearing one page of 2 MiB takes as long as clearing some hundred kilobytes of 4 KiB pages.
constexpr std::size_t cache_line = 64, huge_page = std::size_t{2} << 20;
constexpr std::size_t min_huge_page_bytes = std::size_t{256} << 10;

thread_local AlignedMemory buffer;
thread_local std::size_t size = 0;

// Returns the last `bytes`, in whole cache lines, before a protected page. The memory before them
// holds NaN too.
void* guarded_scratch(std::size_t bytes) {
  constexpr std::size_t capacity = std::size_t{4} << 30, margin = std::size_t{64} << 10;
  thread_local char* const guard_page = [] {
    void* const memory = mmap(nullptr, capacity + huge_page, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    char* const end = static_cast<char*>(memory) + capacity;
    if (mprotect(end, huge_page, PROT_NONE) != 0) throw std::bad_alloc();
    return end;
  }();
  if (bytes > capacity - margin) throw std::bad_alloc();
  const std::size_t rounded = (bytes + cache_line - 1) / cache_line * cache_line;
  std::memset(guard_page - rounded - margin, 0xff, rounded + margin);
  return guard_page - rounded;
}

}  // namespace

AlignedMemory allocate(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(-1) - huge_page) throw std::bad_alloc();
  const std::size_t unit = bytes < min_huge_page_bytes ? cache_line : huge_page;
  const std::size_t rounded = (bytes + unit - 1) / unit * unit;
  AlignedMemory memory(std::aligned_alloc(unit, rounded > 0 ? rounded : unit));
  if (!memory) throw std::bad_alloc();
  if (unit == huge_page) madvise(memory.get(), rounded, MADV_HUGEPAGE);
  return memory;
}

void* scratch(std::size_t bytes) {
  static const bool guard_page = std::getenv("CHAINRULE_FENCE") != nullptr;
  if (guard_page) return guarded_scratch(bytes);
  if (bytes > size) {
    buffer = allocate(bytes);
    size = bytes;
  }
  return buffer.get();
}

HiddenScratch::HiddenScratch() noexcept
    : memory_(std::exchange(buffer, nullptr)), bytes_(std::exchange(size, 0)) {}
HiddenScratch::~HiddenScratch() {
  buffer = std::move(memory_);
  size = bytes_;
}

}  // namespace chainrule
