// A program: operations recorded once, with their arrays, and replayed as one call. Recorded and
// eager calls run the same kernels, so their results agree.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <vector>

#include "bindings/device.h"

namespace chainrule::bindings {

// Every method needs the GIL, which also serializes the callers. run() releases it.
class Program : public std::enable_shared_from_this<Program> {
 public:
  // The program that this thread records, or null, also if that program has been destroyed.
  static std::shared_ptr<Program> recording();

  void begin();
  // Ends recording. If `keep` is false, the recorded steps are discarded.
  void end(bool keep);
  // The device of the steps recorded so far, or null.
  const Device* device() const { return device_; }
  // `arrays` are the arrays that `step` reads and writes.
  void add(const Device& device, Step step, int64_t workspace_bytes, int workers,
           std::span<const ArrayRef> arrays);
  // Runs all steps in order, without the GIL and with subnormal numbers flushed to zero.
  void run();
  std::size_t size() const { return steps_.size(); }

 private:
  void clear();

  enum class State { fresh, recording, preparing, recorded };
  State state_ = State::fresh;
  const Device* device_ = nullptr;
  std::vector<RecordedStep> steps_;
  std::vector<py::object> owners_;
  std::vector<void*> streams_;  // of the arrays, without duplicates
  int64_t workspace_bytes_ = 0;
  std::unique_ptr<Replay> replay_;  // refers to steps_
  // ID of the process that runs it, or 0. A forked child has none of its parent's threads, so an ID
  // of another process counts as 0.
  std::atomic<pid_t> runner_{0};
};

}  // namespace chainrule::bindings
