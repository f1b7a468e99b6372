// Where arrays lie, and what runs on them there. The CPU is one device; a GPU is another.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "bindings/array_view.h"
#include "core/ops.h"

namespace chainrule::bindings {

// Runs without the interpreter's lock while it lives.
//
// Hazard: a daemon thread that comes back for the lock while the interpreter shuts down is ended
// by pthread_exit (Python < 3.14), whose unwinding terminates the process at the first destructor.
// Such a thread waits here for the process to end, as later Pythons make it.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

// A kernel call with everything but its workspace.
using Step = std::function<void(const Workspace&)>;

// A call that lives no longer than the one it is handed to: no allocation.
class Work {
 public:
  template <class F>
  explicit Work(const F& f)
      : context_(&f), call_([](const void* context, const Workspace& workspace) {
          (*static_cast<const F*>(context))(workspace);
        }) {}
  void operator()(const Workspace& workspace) const { call_(context_, workspace); }

 private:
  const void* context_;
  void (*call_)(const void*, const Workspace&);
};

// A recorded step, and how many workers its workspace was counted for.
struct Recorded {
  Step step;
  int workers;
};

// Recorded steps made ready to run again and again.
class Replay {
 public:
  virtual ~Replay() = default;
  // Without the interpreter's lock.
  virtual void run() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const char* place() const = 0;  // "the CPU"
  // The kernels that reach this device's memory.
  virtual const Backend& backend() const = 0;
  // How far its convolutions count pixels along an axis, or the weights of a filter or a channel.
  virtual int64_t most_counted() const = 0;
  // A fresh array, its contents undefined.
  virtual Held allocate(Type type, const Shape& shape) const = 0;
  // The step for a program: what else is chosen for the whole process is for this step chosen now.
  virtual Step recordable(Step step) const = 0;
  // One call on `arrays`, lent `bytes` of workspace that lie on the device. Releases the
  // interpreter's lock.
  virtual void run(const char* op, int64_t bytes, int workers, const Work& work,
                   std::span<const Held> arrays) const = 0;
  // `steps` outlive the result. Every step is lent the same `bytes`; `streams` are those of the
  // arrays.
  virtual std::unique_ptr<Replay> prepare(const std::vector<Recorded>& steps, int64_t bytes,
                                          const std::vector<void*>& streams) const = 0;
  // Copies from the device to the host's memory. False where the host cannot wait for the device:
  // while a program is made ready, whose kernels then look for themselves at every replay.
  virtual bool look(const void* from, int64_t bytes, void* to) const = 0;
};

const Device& cpu();

}  // namespace chainrule::bindings
