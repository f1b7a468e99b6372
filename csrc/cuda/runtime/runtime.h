// Interface of the GPU for the bindings, in plain C++. Implemented by runtime.cpp with the CUDA
// runtime, by runtime_stub.cpp in a build without CUDA, and by tests/simt/runtime.cpp in CPU
// memory.
//
// Failures throw OutOfMemory or std::runtime_error. Queued work may fail late: then the next call
// that synchronizes throws. It throws std::invalid_argument if a program that the thread ran had an
// index out of range.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "core/ops.h"
#include "cuda/runtime/stream.h"
#include "cuda/training_step.h"

namespace chainrule::cuda {

// Table of the operations. Requires an empty why_off(), as do all functions below except
// description().
const Backend& kernels();
// Kernels of a training step beside the operations.
const TrainingStepKernels& training_step_kernels();

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Returns in one line why no GPU can be used; empty if one can. Decided by the first call.
const std::string& why_off();
// Describes the GPU in use, its driver and the runtime, in one line.
const std::string& description();

// Selects the GPU in use for the calling thread, and restores the previous one at destruction.
// Another library may have selected another device. The functions below do this themselves.
class DeviceGuard {
 public:
  DeviceGuard();
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
};

// Returns `bytes` of device memory for work on `stream`; null if `bytes` is 0.
void* allocate(int64_t bytes, Stream stream);
// Frees memory after the work queued on `stream` so far.
void release(void* memory, Stream stream) noexcept;
// Free and total bytes on the device. Unused memory in the pool counts as free.
struct MemoryInfo {
  int64_t free, total;
};
MemoryInfo memory();

// Returns when `from` may be changed.
void copy_to_device(void* to, const void* from, int64_t bytes, Stream stream);
// Waits for the result.
void copy_to_host(void* to, const void* from, int64_t bytes, Stream stream);
void copy_on_device(void* to, const void* from, int64_t bytes, Stream stream);
void fill_zero(void* to, int64_t bytes, Stream stream);

// The stream that other libraries use by default.
Stream default_stream();
// Work queued on `later` from now on waits for the work queued on `earlier` so far.
void stream_wait(Stream later, Stream earlier);
// Waits for all work queued on `stream`.
void synchronize(Stream stream);
// Waits for all work on the device, also that of other libraries.
void synchronize_device();

// Throws std::runtime_error, prefixed with `op`, if a launch of this thread failed.
void check_launches(const char* op);

// A captured graph of launches.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch(Stream stream) = 0;
};
// Records the launches of `body` on the calling thread; nothing runs. It captures a stream of its
// own, because other threads may queue work on this thread's stream.
std::unique_ptr<Graph> capture(const std::function<void()>& body);

}  // namespace chainrule::cuda
