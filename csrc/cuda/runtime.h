// The GPU as the bindings see it: plain C++, implemented over CUDA's runtime by runtime.cpp and over
// the CPU's memory by tests/simt/runtime.cpp.
//
// What fails throws: OutOfMemory, or std::runtime_error that begins with what was done. Work that was
// queued before may also fail late: it is reported by the next call that waits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>

#include "core/ops.h"
#include "cuda/stream.h"

namespace chainrule::cuda {

extern const Backend backend;

class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Why no GPU can be used, in one line; empty where one can. Decided by the first call.
const std::string& why_off();
// Of the GPU in use: its name, memory, clock, driver and runtime, in one line.
const std::string& description();
int device_index();

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

// Ends an operation: throws where one of its launches failed.
void finish(const char* op);

// Launches recorded once, to be queued again as one.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch(Stream stream) = 0;
};
// Records what `body` launches on the calling thread's stream; nothing runs.
std::unique_ptr<Graph> capture(const std::function<void()>& body);

}  // namespace chainrule::cuda
