// A device: memory for arrays, and the kernels that run on it. The CPU is one, a GPU another.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bindings/array_view.h"
#include "core/ops.h"
#include "cpu/cancellation.h"
#include "cpu/replay.h"

namespace chainrule::bindings {

// Releases the GIL during its lifetime.
//
// Hazard: if a daemon thread reacquires the GIL during interpreter shutdown, Python < 3.14 ends it
// by pthread_exit. The unwinding then terminates the process at the first destructor. Such a thread
// blocks here until the process ends, as it does in later versions of Python.
class ScopedGilRelease {
 public:
  ScopedGilRelease() : state_(PyEval_SaveThread()) {}
  ~ScopedGilRelease();
  ScopedGilRelease(const ScopedGilRelease&) = delete;
  ScopedGilRelease& operator=(const ScopedGilRelease&) = delete;

 private:
  PyThreadState* state_;
};

// Releases the GIL during its lifetime. About every 50 ms, between parts of the work, Python's main
// thread runs pending signal handlers, such as that of Ctrl-C. If one raises, cancelled() is true,
// the rest of the work is left out, and the exception is set when the GIL is held again.
class InterruptibleGilRelease {
 public:
  InterruptibleGilRelease();
  ~InterruptibleGilRelease();
  InterruptibleGilRelease(const InterruptibleGilRelease&) = delete;
  InterruptibleGilRelease& operator=(const InterruptibleGilRelease&) = delete;

  bool cancelled() const { return cancellation_.cancelled(); }
  // After the lifetime of a cancelled object.
  [[noreturn]] static void throw_cause(const char* op);

 private:
  static bool run_signal_handlers(void* self) noexcept;

  uint64_t float_mode_;  // of the caller, for its signal handlers
  PyThreadState* state_;
  Cancellation cancellation_;
};

// Runs f() without the GIL. Throws the exception of a signal handler. The results of f() are then
// undefined.
template <class F>
void run_interruptibly(const char* op, F f) {
  bool cancelled = false;
  {
    const InterruptibleGilRelease no_gil;
    try {
      f();
    } catch (...) {
      if (!no_gil.cancelled()) throw;
    }
    cancelled = no_gil.cancelled();
  }
  if (cancelled) InterruptibleGilRelease::throw_cause(op);
}

// A non-owning reference to a Step-like callable, without an allocation.
class StepRef {
 public:
  template <class F>
  explicit StepRef(const F& f)
      : context_(&f), call_([](const void* context, const Workspace& workspace) {
          (*static_cast<const F*>(context))(workspace);
        }) {}
  void operator()(const Workspace& workspace) const { call_(context_, workspace); }

 private:
  const void* context_;
  void (*call_)(const void*, const Workspace&);
};

// Recorded steps, ready for repeated runs.
class Replay {
 public:
  virtual ~Replay() = default;
  // Called without the GIL.
  virtual void run() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* name() const = 0;  // "the CPU"
  // The kernels that access this device's memory.
  virtual const Backend& backend() const = 0;
  // Largest axis of an image, and largest number of weights per filter or per channel, that its
  // convolutions accept.
  virtual int64_t max_extent() const = 0;
  // A new array with undefined contents.
  virtual ArrayRef allocate(DType type, const Shape& shape) const = 0;
  // Returns the step as a program stores it, with process-wide settings fixed at their present
  // values.
  virtual Step recordable(Step step) const = 0;
  // Runs one call on `arrays` with `bytes` of workspace in the device's memory. Releases the GIL.
  // On the CPU it runs interruptibly.
  virtual void run(const char* op, int64_t bytes, int workers, const StepRef& work,
                   std::span<const ArrayRef> arrays) const = 0;
  // Prepares recorded steps for replay. `steps` must outlive the result. All steps share one
  // workspace of `bytes`. `streams` are those of the arrays.
  virtual std::unique_ptr<Replay> prepare(const std::vector<RecordedStep>& steps, int64_t bytes,
                                          const std::vector<void*>& streams) const = 0;
  // Copies from device to host memory. Returns false if the host cannot wait for the device, which
  // is so while a program is prepared. Its kernels then check the values themselves at every
  // replay.
  virtual bool copy_to_host(const void* from, int64_t bytes, void* to) const = 0;
};

const Device& cpu();

}  // namespace chainrule::bindings
