// A program: operations recorded once, with their arrays, and replayed as one call. The operations
// themselves are those of an eager call, so there is one semantics.
#pragma once

#include <pybind11/pybind11.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include "core/shape.h"

namespace chainrule::bindings {

// Everything but run() needs the interpreter's lock, which also keeps its callers apart.
class Program : public std::enable_shared_from_this<Program> {
 public:
  using Step = std::function<void(const Workspace&)>;

  // The program that this thread records, or null. A program that was dropped while it recorded is
  // no longer there.
  static std::shared_ptr<Program> recording();

  void begin();
  // Ends recording; without `keep` what was recorded is dropped.
  void end(bool keep);
  // `step` keeps its arrays alive.
  void add(Step step, int64_t workspace_bytes, int workers);
  // All steps in order, without the interpreter's lock and with subnormals flushed to zero.
  void run();
  std::size_t size() const { return steps_.size(); }

 private:
  enum class State { fresh, recording, recorded };
  struct Recorded {
    Step step;
    int workers;
  };
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  State state_ = State::fresh;
  std::vector<Recorded> steps_;
  int64_t bytes_ = 0;
  std::unique_ptr<void, Free> memory_;
  // The process that runs it, or 0: the child of a fork has none of the threads of its parent.
  std::atomic<pid_t> runner_{0};
};

}  // namespace chainrule::bindings
