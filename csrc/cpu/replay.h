// Kernel calls that were recorded once and run many times. The bindings record them. They know
// nothing of Python, so a test of the threads can run them alone.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "core/shape.h"
#include "cpu/scratch.h"
#include "cpu/thread_count_tuner.h"
#include "cpu/threads.h"

namespace chainrule {

// A kernel call with all arguments except its workspace.
using Step = std::function<void(const Workspace&)>;

// A recorded step, and the number of workers that its workspace is sized for.
struct RecordedStep {
  Step step;
  int workers;
};

// Runs recorded steps in order, with subnormal numbers flushed to zero, on the number of threads
// that is fastest. Only one thread at a time may call run().
class CpuReplay {
 public:
  // `steps` must outlive this object. All steps share one workspace of `bytes`. Throws
  // std::bad_alloc.
  CpuReplay(const std::vector<RecordedStep>& steps, std::size_t bytes);
  void run();

 private:
  const std::vector<RecordedStep>& steps_;
  AlignedMemory memory_;
  ThreadCountTuner tuner_{num_threads()};
};

}  // namespace chainrule
