// The runtime of a library that is built without CUDA: says so. Nobody comes further, because all
// that reaches the GPU asks why_off() first.
#include <stdexcept>

#include "cuda/runtime/runtime.h"

namespace chainrule::cuda {
namespace {

[[noreturn]] void refuse() { throw std::logic_error("cuda: " + why_off()); }

}  // namespace

const std::string& why_off() {
  static const std::string reason =
      "chainrule is built without CUDA (CHAINRULE_CUDA=OFF, or no nvcc)";
  return reason;
}
const std::string& description() { return why_off(); }
const Backend& kernels() { refuse(); }
const Training& training() { refuse(); }
Stream current_stream() { refuse(); }
Stream default_stream() { refuse(); }
OnGpu::OnGpu() { refuse(); }
OnGpu::~OnGpu() {}
void* allocate(int64_t, Stream) { refuse(); }
void release(void*, Stream) noexcept {}
Memory memory() { refuse(); }
void copy_in(void*, const void*, int64_t, Stream) { refuse(); }
void copy_out(void*, const void*, int64_t, Stream) { refuse(); }
void copy(void*, const void*, int64_t, Stream) { refuse(); }
void fill_zero(void*, int64_t, Stream) { refuse(); }
void wait(Stream, Stream) { refuse(); }
void drain() { refuse(); }
void synchronize(Stream) { refuse(); }
void finish(const char*) { refuse(); }
std::unique_ptr<Graph> capture(const std::function<void()>&) { refuse(); }

}  // namespace chainrule::cuda
