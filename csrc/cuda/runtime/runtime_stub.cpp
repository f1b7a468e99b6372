// Runtime of a build without CUDA. Every entry point checks why_off() first, so the other functions
// are never called.
#include <stdexcept>

#include "cuda/runtime/runtime.h"

namespace chainrule::cuda {
namespace {

[[noreturn]] void throw_unavailable() { throw std::logic_error("cuda: " + why_off()); }

}  // namespace

const std::string& why_off() {
  static const std::string reason =
      "chainrule is built without CUDA (CHAINRULE_CUDA=OFF, or no GPU or nvcc found)";
  return reason;
}
const std::string& description() { return why_off(); }
const Backend& kernels() { throw_unavailable(); }
const TrainingStepKernels& training_step_kernels() { throw_unavailable(); }
Stream current_stream() { throw_unavailable(); }
Stream default_stream() { throw_unavailable(); }
DeviceGuard::DeviceGuard() { throw_unavailable(); }
DeviceGuard::~DeviceGuard() {}
void* allocate(int64_t, Stream) { throw_unavailable(); }
void release(void*, Stream) noexcept {}
MemoryInfo memory() { throw_unavailable(); }
void copy_to_device(void*, const void*, int64_t, Stream) { throw_unavailable(); }
void copy_to_host(void*, const void*, int64_t, Stream) { throw_unavailable(); }
void copy_on_device(void*, const void*, int64_t, Stream) { throw_unavailable(); }
void fill_zero(void*, int64_t, Stream) { throw_unavailable(); }
void stream_wait(Stream, Stream) { throw_unavailable(); }
void synchronize_device() { throw_unavailable(); }
void synchronize(Stream) { throw_unavailable(); }
void check_launches(const char*) { throw_unavailable(); }
std::unique_ptr<Graph> capture(const std::function<void()>&) { throw_unavailable(); }

}  // namespace chainrule::cuda
