// The GPU as the bindings see it, in plain C++. Implemented by runtime.cpp over CUDA's runtime, by
// absent.cpp where the library is built without CUDA, and by tests/simt/runtime.cpp over the CPU's
// memory.
//
// What fails throws: OutOfMemory, or std::runtime_error. Queued work may fail late: the next call
// that waits throws, also std::invalid_argument where a program that the thread ran met an index
// out of range.
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

// The table of the operations; only where why_off() is empty, as all that follows it.
const Backend& kernels();
// What training on the GPU needs beside them.
const Training& training();

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Why no GPU can be used, in one line; empty where one can. Decided by the first call.
const std::string& why_off();
// The GPU in use, its driver and the runtime, in one line.
const std::string& description();

// While one lives, the calling thread's calls go to the GPU in use: another library may have chosen
// another for the thread. The functions below see to it themselves.
class OnGpu {
 public:
  OnGpu();
  ~OnGpu();
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;

 private:
  int before_ = 0;
};

// `bytes` of device memory for work on `stream`; null for none.
void* allocate(int64_t bytes, Stream stream);
// Once the work that was queued on `stream` before is done.
void release(void* memory, Stream stream) noexcept;
// Free and total bytes on the device; what the pool holds but nobody uses is free.
struct Memory {
  int64_t free, total;
};
Memory memory();

// Returns once `from` may be changed.
void copy_in(void* to, const void* from, int64_t bytes, Stream stream);
// Waits for the result.
void copy_out(void* to, const void* from, int64_t bytes, Stream stream);
void copy(void* to, const void* from, int64_t bytes, Stream stream);
void fill_zero(void* to, int64_t bytes, Stream stream);

// The stream that other libraries use by default.
Stream default_stream();
// What is queued on `later` from now on waits for what is queued on `earlier` so far.
void wait(Stream later, Stream earlier);
// Waits for all that was queued on `stream`.
void synchronize(Stream stream);
// Waits for all that was queued on any stream, also by others.
void drain();

// Ends an operation: throws where one of its launches failed.
void finish(const char* op);

// Launches recorded once, to be queued again as one.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch(Stream stream) = 0;
};
// Records what `body` launches on the calling thread; nothing runs. On a stream of its own
// meanwhile: on the thread's, what other threads do to its arrays would be recorded too.
std::unique_ptr<Graph> capture(const std::function<void()>& body);

}  // namespace chainrule::cuda
