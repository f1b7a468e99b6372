#include "cpu/scratch.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace chainrule {
namespace {

// One page of 2 MiB takes as long to clear as the 4 KiB pages of some hundred kilobytes.
constexpr std::size_t cache_line = 64, huge_page = std::size_t{2} << 20;
constexpr std::size_t worth_huge_pages = std::size_t{256} << 10;

thread_local AlignedMemory buffer;
thread_local std::size_t size = 0;

// The last `bytes`, in whole cache lines, before a page that nobody may touch. NaN before it too.
void* fenced(std::size_t bytes) {
  constexpr std::size_t room = std::size_t{4} << 30, before = std::size_t{64} << 10;
  thread_local char* const fence = [] {
    void* const memory = mmap(nullptr, room + huge_page, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    char* const end = static_cast<char*>(memory) + room;
    if (mprotect(end, huge_page, PROT_NONE) != 0) throw std::bad_alloc();
    return end;
  }();
  if (bytes > room - before) throw std::bad_alloc();
  const std::size_t rounded = (bytes + cache_line - 1) / cache_line * cache_line;
  std::memset(fence - rounded - before, 0xff, rounded + before);
  return fence - rounded;
}

}  // namespace

AlignedMemory allocate(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(-1) - huge_page) throw std::bad_alloc();
  const std::size_t unit = bytes < worth_huge_pages ? cache_line : huge_page;
  const std::size_t rounded = (bytes + unit - 1) / unit * unit;
  AlignedMemory memory(std::aligned_alloc(unit, rounded > 0 ? rounded : unit));
  if (!memory) throw std::bad_alloc();
  if (unit == huge_page) madvise(memory.get(), rounded, MADV_HUGEPAGE);
  return memory;
}

void* scratch(std::size_t bytes) {
  static const bool fence = std::getenv("CHAINRULE_FENCE") != nullptr;
  if (fence) return fenced(bytes);
  if (bytes > size) {
    buffer = allocate(bytes);
    size = bytes;
  }
  return buffer.get();
}

}  // namespace chainrule
