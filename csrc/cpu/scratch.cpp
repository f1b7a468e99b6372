#include "cpu/scratch.h"

#include <cstdlib>
#include <new>

namespace chainrule {
namespace {

constexpr std::size_t alignment = 64;

struct Buffer {
  void* data = nullptr;
  std::size_t size = 0;
  ~Buffer() { std::free(data); }
};

thread_local Buffer buffer;

}  // namespace

void* scratch(std::size_t bytes) {
  if (bytes > buffer.size) {
    if (bytes > static_cast<std::size_t>(-1) - alignment) throw std::bad_alloc();
    const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
    void* const data = std::aligned_alloc(alignment, size);
    if (!data) throw std::bad_alloc();
    std::free(buffer.data);
    buffer.data = data;
    buffer.size = size;
  }
  return buffer.data;
}

}  // namespace chainrule
