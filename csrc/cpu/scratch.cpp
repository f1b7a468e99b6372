#include "cpu/scratch.h"

#include <sys/mman.h>

#include <new>

namespace chainrule {
namespace {

// One page of 2 MiB takes as long to clear as the 4 KiB pages of some hundred kilobytes.
constexpr std::size_t cache_line = 64, huge_page = std::size_t{2} << 20;
constexpr std::size_t worth_huge_pages = std::size_t{256} << 10;

thread_local Memory buffer;
thread_local std::size_t size = 0;

}  // namespace

Memory allocate(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(-1) - huge_page) throw std::bad_alloc();
  const std::size_t unit = bytes < worth_huge_pages ? cache_line : huge_page;
  const std::size_t rounded = (bytes + unit - 1) / unit * unit;
  Memory memory(std::aligned_alloc(unit, rounded > 0 ? rounded : unit));
  if (!memory) throw std::bad_alloc();
  if (unit == huge_page) madvise(memory.get(), rounded, MADV_HUGEPAGE);
  return memory;
}

void* scratch(std::size_t bytes) {
  if (bytes > size) {
    buffer = allocate(bytes);
    size = bytes;
  }
  return buffer.get();
}

}  // namespace chainrule
