#include "bindings/program.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "bindings/module.h"

namespace chainrule::bindings {
namespace {

// Weak, because a thread may end without the GIL, and because a recording cut off by an interrupt
// must not block this thread forever.
thread_local std::weak_ptr<Program> current;

}  // namespace

std::shared_ptr<Program> Program::recording() { return current.lock(); }

void Program::begin() {
  if (recording())
    throw std::runtime_error(
        "Program: a thread must record one program at a time, got a second one");
  if (state_ != State::fresh)
    throw std::runtime_error(
        "Program: a program must be recorded only once, got a second recording");
  current = weak_from_this();
  state_ = State::recording;
}

void Program::end(bool keep) {
  if (state_ != State::recording || recording().get() != this) {
    throw std::runtime_error("Program: recording must end in the thread that began it");
  }
  current.reset();
  // Neither recording nor runnable until it is ready: a device prepares without the GIL.
  state_ = State::preparing;
  try {
    if (keep) {
      replay_ = (device_ ? *device_ : cpu()).prepare(steps_, workspace_bytes_, streams_);
      state_ = State::recorded;
      return;
    }
  } catch (...) {
    clear();
    throw;
  }
  clear();
}

void Program::clear() {
  // Destroying objects may run Python code and other threads. They must see an empty program, so
  // the members are cleared before the objects are destroyed.
  const std::vector<RecordedStep> steps = std::exchange(steps_, {});
  const std::vector<py::object> owners = std::exchange(owners_, {});
  streams_.clear();
  workspace_bytes_ = 0;
  device_ = nullptr;
  state_ = State::fresh;
}

void Program::add(const Device& device, Step step, int64_t workspace_bytes, int workers,
                  std::span<const ArrayRef> arrays) {
  device_ = &device;
  for (const ArrayRef& ref : arrays) {
    owners_.push_back(ref.object);
    owners_.push_back(pin_memory(ref));
    if (ref.stream && std::find(streams_.begin(), streams_.end(), ref.stream) == streams_.end()) {
      streams_.push_back(ref.stream);
    }
  }
  workspace_bytes_ = std::max(workspace_bytes_, workspace_bytes);
  steps_.push_back(
      {std::move(step), workers});  // after its arrays, so that it never refers to freed memory
}

void Program::run() {
  if (recording()) {
    throw std::runtime_error(
        "Program: run() must not be called while this thread records a program");
  }
  if (state_ != State::recorded)
    throw std::runtime_error("Program: a program must be recorded before it runs");
  pid_t runner = runner_.load();
  if (runner == getpid() || !runner_.compare_exchange_strong(runner, getpid())) {
    throw std::runtime_error(
        "Program: a program must run in one thread at a time, got a second run()");
  }
  struct Done {
    std::atomic<pid_t>& runner;
    ~Done() { runner.store(0); }
  } const done{runner_};
  run_interruptibly("Program", [this] { replay_->run(); });
}

void bind_program(py::module_& m) {
  py::class_<Program, std::shared_ptr<Program>>(m, "Program")
      .def(py::init<>())
      .def("__enter__",
           [](const py::object& self) {
             self.cast<Program&>().begin();
             return self;
           })
      .def("__exit__", [](Program& program, const py::object& type, const py::object&,
                          const py::object&) { program.end(type.is_none()); })
      .def("__len__", &Program::size)
      .def("__bool__", [](const Program&) { return true; })
      .def("run", &Program::run);
}

}  // namespace chainrule::bindings
