// A program: operations recorded once, with their arrays, and replayed as one call. The operations
// themselves are those of an eager call, so there is one semantics.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/shape.h"

namespace chainrule::bindings {

class Program {
 public:
  using Step = std::function<void(const Workspace&)>;

  // The program that this thread records, or null.
  static Program* recording() noexcept;

  void begin();
  // Ends recording; without `keep` what was recorded is dropped.
  void end(bool keep);
  // `step` keeps its arrays alive. Needs the interpreter's lock, as whatever copies a step does.
  void add(Step step, int64_t workspace_bytes, int workers);
  // All steps in order, without the interpreter's lock and with subnormals flushed to zero.
  void run();
  std::size_t size() const { return steps_.size(); }

 private:
  struct Recorded {
    Step step;
    int workers;
  };
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  std::vector<Recorded> steps_;
  int64_t bytes_ = 0;
  std::unique_ptr<void, Free> memory_;
  bool recorded_ = false;
  std::atomic<bool> running_{false};
};

}  // namespace chainrule::bindings
