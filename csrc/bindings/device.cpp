#include "bindings/device.h"

#include <cxxabi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "cpu/convolution_precision.h"
#include "cpu/dispatch.h"
#include "cpu/float_mode.h"
#include "cpu/scratch.h"

namespace chainrule::bindings {
namespace {

class Replayed final : public Replay {
 public:
  Replayed(const std::vector<RecordedStep>& steps, int64_t bytes)
      : replay_(steps, static_cast<std::size_t>(bytes)) {}
  void run() override { replay_.run(); }

 private:
  CpuReplay replay_;
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
  void run(const char* op, int64_t bytes, int workers, const StepRef& work,
           std::span<const ArrayRef> arrays) const override {
    // Another thread or a signal handler may resize an array during the call. Pinning takes 50 ns
    // per array, so calls whose arrays are all small, which are short, leave it out.
    constexpr int64_t min_pinned_bytes = int64_t{1} << 16;
    const bool is_long = std::any_of(arrays.begin(), arrays.end(), [](const ArrayRef& ref) {
      return ref.nbytes() >= min_pinned_bytes;
    });
    std::vector<py::object> pins;
    if (is_long) {
      for (const ArrayRef& ref : arrays) {
        pins.push_back(pin_memory(ref));
        // A handler may have run while another argument was copied.
        if (!has_memory(ref)) {
          throw py::value_error(std::string(op) +
                                ": arrays must keep their memory during the call, got a resize");
        }
      }
    }
    run_interruptibly(op,
                      [&] { work(Workspace{scratch(static_cast<std::size_t>(bytes)), workers}); });
  }
  std::unique_ptr<Replay> prepare(const std::vector<RecordedStep>& steps, int64_t bytes,
                                  const std::vector<void*>&) const override {
    return std::make_unique<Replayed>(steps, bytes);
  }
  bool copy_to_host(const void* from, int64_t bytes, void* to) const override {
    if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return true;
  }
};

// See the hazard at ScopedGilRelease.
void acquire_gil(PyThreadState* state) noexcept {
  try {
    PyEval_RestoreThread(state);
  } catch (abi::__forced_unwind&) {
    for (;;) ::pause();
  }
}

}  // namespace

ScopedGilRelease::~ScopedGilRelease() { acquire_gil(state_); }

InterruptibleGilRelease::InterruptibleGilRelease()
    : float_mode_(float_mode()),
      state_(PyEval_SaveThread()),
      cancellation_(&run_signal_handlers, this) {}
InterruptibleGilRelease::~InterruptibleGilRelease() { acquire_gil(state_); }

bool InterruptibleGilRelease::run_signal_handlers(void* self) noexcept {
  const pid_t process = getpid();
  // Other threads have no handlers to run, and would only wait for the GIL.
  if (syscall(SYS_gettid) != process) return false;
  InterruptibleGilRelease& release = *static_cast<InterruptibleGilRelease*>(self);
  const uint64_t mode = float_mode();
  set_float_mode(release.float_mode_);
  acquire_gil(release.state_);
  bool stop = false;
  {
    const HiddenScratch hidden;
    const ScopedConvolutionPrecision selected;
    stop = PyErr_CheckSignals() != 0;
  }
  release.state_ = PyEval_SaveThread();
  set_float_mode(mode);
  // A forked child lacks the threads that run other parts.
  return stop || getpid() != process;
}

void InterruptibleGilRelease::throw_cause(const char* op) {
  if (PyErr_Occurred()) throw py::error_already_set();
  throw std::runtime_error(std::string(op) +
                           ": the call must end in the process that began it, got a fork by a "
                           "signal handler");
}

const Device& cpu() {
  static const Cpu device;
  return device;
}

}  // namespace chainrule::bindings
