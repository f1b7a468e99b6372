#include "bindings/device.h"

#include <cxxabi.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <utility>

#include "cpu/convolution_precision.h"
#include "cpu/dispatch.h"
#include "cpu/float_mode.h"
#include "cpu/scratch.h"
#include "cpu/thread_count_tuner.h"
#include "cpu/threads.h"

namespace chainrule::bindings {
namespace {

class CpuReplay final : public Replay {
 public:
  CpuReplay(const std::vector<RecordedStep>& steps, int64_t bytes)
      : steps_(steps), memory_(allocate(static_cast<std::size_t>(bytes))) {}
  void run() override {
    const FlushSubnormals flush;
    if (tuner_.max_threads() != num_threads()) tuner_ = ThreadCountTuner(num_threads());
    const ScopedThreadLimit limit(tuner_.threads());
    const auto start = std::chrono::steady_clock::now();
    for (const RecordedStep& recorded : steps_) {
      recorded.step(Workspace{memory_.get(), recorded.workers});
    }
    const std::chrono::nanoseconds passed = std::chrono::steady_clock::now() - start;
    tuner_.record(passed.count());
  }

 private:
  const std::vector<RecordedStep>& steps_;
  AlignedMemory memory_;
  ThreadCountTuner tuner_{num_threads()};
};

class Cpu final : public Device {
 public:
  const char* name() const override { return "the CPU"; }
  const Backend& backend() const override { return active_backend(); }
  int64_t max_extent() const override { return INT64_MAX; }
  ArrayRef allocate(DType type, const Shape& shape) const override {
    const py::array array(numpy_dtype(type), shape);
    return {array, array.data(), shape, type, this};
  }
  Step recordable(Step step) const override {
    return
        [step = std::move(step), precision = convolution_precision()](const Workspace& workspace) {
          const ScopedConvolutionPrecision scope(precision);
          step(workspace);
        };
  }
  void run(const char*, int64_t bytes, int workers, const StepRef& work,
           std::span<const ArrayRef>) const override {
    const ScopedGilRelease no_gil;
    work(Workspace{scratch(static_cast<std::size_t>(bytes)), workers});
  }
  std::unique_ptr<Replay> prepare(const std::vector<RecordedStep>& steps, int64_t bytes,
                                  const std::vector<void*>&) const override {
    return std::make_unique<CpuReplay>(steps, bytes);
  }
  bool copy_to_host(const void* from, int64_t bytes, void* to) const override {
    if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return true;
  }
};

}  // namespace

ScopedGilRelease::~ScopedGilRelease() {
  try {
    PyEval_RestoreThread(state_);
  } catch (abi::__forced_unwind&) {
    for (;;) ::pause();
  }
}

const Device& cpu() {
  static const Cpu device;
  return device;
}

}  // namespace chainrule::bindings
