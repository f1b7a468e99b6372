#include "bindings/program.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "bindings/module.h"

namespace chainrule::bindings {
namespace {

// Weak, because a thread may end without the interpreter's lock, and because a recording that an
// interrupt cut off should not bind this thread for ever.
thread_local std::weak_ptr<Program> current;

}  // namespace

std::shared_ptr<Program> Program::recording() { return current.lock(); }

void Program::begin() {
  if (recording()) throw std::runtime_error("Program: this thread already records another program");
  if (state_ != State::fresh) throw std::runtime_error("Program: a program is recorded only once");
  current = weak_from_this();
  state_ = State::recording;
}

void Program::end(bool keep) {
  if (state_ != State::recording || recording().get() != this) {
    throw std::runtime_error("Program: this thread does not record it");
  }
  current.reset();
  // Until it is ready it is nobody's: a device prepares without the interpreter's lock.
  state_ = State::preparing;
  try {
    if (keep) {
      replay_ = (device_ ? *device_ : cpu()).prepare(steps_, bytes_, streams_);
      state_ = State::recorded;
      return;
    }
  } catch (...) {
    forget();
    throw;
  }
  forget();
}

void Program::forget() {
  // Objects that end may run code, and other threads, which are to find a program that is empty.
  const std::vector<Recorded> steps = std::exchange(steps_, {});
  const std::vector<py::object> owners = std::exchange(owners_, {});
  streams_.clear();
  bytes_ = 0;
  device_ = nullptr;
  state_ = State::fresh;
}

void Program::add(const Device& device, Step step, int64_t workspace_bytes, int workers,
                  std::span<const Held> arrays) {
  device_ = &device;
  for (const Held& held : arrays) {
    owners_.push_back(held.object);
    if (held.stream && std::find(streams_.begin(), streams_.end(), held.stream) == streams_.end()) {
      streams_.push_back(held.stream);
    }
  }
  bytes_ = std::max(bytes_, workspace_bytes);
  steps_.push_back({std::move(step), workers});  // once all that it names is held
}

void Program::run() {
  if (recording()) {
    throw std::runtime_error("Program: a program cannot run while this thread records one");
  }
  if (state_ != State::recorded) throw std::runtime_error("Program: nothing has been recorded");
  pid_t runner = runner_.load();
  if (runner == getpid() || !runner_.compare_exchange_strong(runner, getpid())) {
    throw std::runtime_error("Program: already running in another thread");
  }
  struct Done {
    std::atomic<pid_t>& runner;
    ~Done() { runner.store(0); }
  } const done{runner_};
  const Unlocked unlocked;
  replay_->run();
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
