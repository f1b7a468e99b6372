// A program: operations recorded once, with their arrays, and replayed as one call. The operations
// themselves are those of an eager call, so there is one semantics.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <vector>

#include "bindings/device.h"

namespace chainrule::bindings {

// Everything but run() needs the interpreter's lock, which also keeps its callers apart.
class Program : public std::enable_shared_from_this<Program> {
 public:
  // The program that this thread records, or null. A program that was dropped while it recorded is
  // no longer there.
  static std::shared_ptr<Program> recording();

  void begin();
  // Ends recording; without `keep` what was recorded is dropped.
  void end(bool keep);
  // The device of what was recorded so far, or null.
  const Device* device() const { return device_; }
  // `arrays` are what `step` reads and writes.
  void add(const Device& device, Step step, int64_t workspace_bytes, int workers,
           std::span<const ArrayRef> arrays);
  // All steps in order, without the interpreter's lock and with subnormals flushed to zero.
  void run();
  std::size_t size() const { return steps_.size(); }

 private:
  void clear();

  enum class State { fresh, recording, preparing, recorded };
  State state_ = State::fresh;
  const Device* device_ = nullptr;
  std::vector<RecordedStep> steps_;
  std::vector<py::object> owners_;
  std::vector<void*> streams_;  // of the arrays, each once
  int64_t workspace_bytes_ = 0;
  std::unique_ptr<Replay> replay_;  // refers to steps_
  // The process that runs it, or 0: the child of a fork has none of the threads of its parent.
  std::atomic<pid_t> runner_{0};
};

}  // namespace chainrule::bindings
