// Runtime of a build without CUDA. Every entry point checks why_off() first, so the other functions
// are never called.
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
const TrainingStepKernels& training_step_kernels() { refuse(); }
Stream current_stream() { refuse(); }
Stream default_stream() { refuse(); }
DeviceGuard::DeviceGuard() { refuse(); }
DeviceGuard::~DeviceGuard() {}
void* allocate(int64_t, Stream) { refuse(); }
void release(void*, Stream) noexcept {}
MemoryInfo memory() { refuse(); }
void copy_to_device(void*, const void*, int64_t, Stream) { refuse(); }
void copy_to_host(void*, const void*, int64_t, Stream) { refuse(); }
void copy_on_device(void*, const void*, int64_t, Stream) { refuse(); }
void fill_zero(void*, int64_t, Stream) { refuse(); }
void stream_wait(Stream, Stream) { refuse(); }
void synchronize_device() { refuse(); }
void synchronize(Stream) { refuse(); }
void check_launches(const char*) { refuse(); }
std::unique_ptr<Graph> capture(const std::function<void()>&) { refuse(); }

}  // namespace chainrule::cuda
