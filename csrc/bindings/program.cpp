#include "bindings/program.h"

#include "bindings/array.h"
#include "bindings/operations.h"
#include "cpu/float_mode.h"

namespace chainrule::bindings {
namespace {

thread_local Program* current = nullptr;

}  // namespace

Program* Program::recording() noexcept { return current; }

void Program::begin() {
  if (current) throw std::runtime_error("Program: this thread already records another program");
  if (recorded_) throw std::runtime_error("Program: a program is recorded only once");
  current = this;
}

void Program::end(bool keep) {
  current = nullptr;
  if (!keep) {
    steps_.clear();
    return;
  }
  void* const memory = std::aligned_alloc(64, (static_cast<std::size_t>(bytes_) + 127) / 64 * 64);
  if (!memory) throw std::bad_alloc();
  memory_.reset(memory);
  recorded_ = true;
}

void Program::add(Step step, int64_t workspace_bytes, int workers) {
  steps_.push_back({std::move(step), workers});
  bytes_ = std::max(bytes_, workspace_bytes);
}

void Program::run() {
  if (!recorded_) throw std::runtime_error("Program: nothing has been recorded");
  if (running_.exchange(true)) {
    throw std::runtime_error("Program: already running in another thread");
  }
  struct Done {
    std::atomic<bool>& running;
    ~Done() { running.store(false); }
  } const done{running_};
  const Unlocked unlocked;
  const FlushSubnormals flush;
  for (const Recorded& recorded : steps_) {
    recorded.step(Workspace{memory_.get(), recorded.workers});
  }
}

void bind_program(py::module_& m) {
  py::class_<Program>(m, "Program")
      .def(py::init<>())
      .def(
          "__enter__",
          [](Program& program) -> Program& {
            program.begin();
            return program;
          },
          py::return_value_policy::reference)
      .def("__exit__", [](Program& program, const py::object& type, const py::object&,
                          const py::object&) { program.end(type.is_none()); })
      .def("__len__", &Program::size)
      .def("run", &Program::run);
}

}  // namespace chainrule::bindings
