// Arguments as kernels want them: checked, dense, and typed. Every entry point comes through here,
// and behind it nobody checks anything again.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/program.h"
#include "core/ops.h"
#include "cpu/cpu.h"
#include "cpu/scratch.h"
#include "cpu/threads.h"

namespace chainrule::bindings {

namespace py = pybind11;
using Shape = std::vector<int64_t>;
using ArrayPair = py::typing::Tuple<py::array, py::array>;

std::string to_string(const Shape& shape);      // "(2, 3)"
std::string type_of(const py::handle& object);  // "int64" for an array, else the type's name
// The product, or ValueError when it does not fit 63 bits.
// Speaks of an array of `shape`, which may lack factors such as the size of an element.
int64_t product(const std::string& op, const Shape& factors, const Shape& shape);

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

// One call of an operation: collects its operands, so that their types can be compared, and its
// results checked against overlap.
class Call {
 public:
  explicit Call(std::string op) : op_(std::move(op)) {}

  // A float32 or float64 array of `rank` dimensions (any, if negative), of the same type as those
  // before. Not contiguous or not aligned: through a copy. An object with __dlpack__ is adopted.
  py::array input(const char* name, const py::object& object, int rank = -1);
  // Integers of any width as a dense int64 array of one dimension.
  // Those of uint64 that int64 lacks are refused as not below `end`.
  py::array integers(const char* name, const py::object& object, int64_t end);
  // What `gather` takes rows from: like an input, or bytes, which have no say in the type.
  py::array source(const py::object& object);
  // The type of the operands is that of the result: float32 when none is given.
  void type_from(const py::object& out);
  // What `max_pool2d` returned as argmax.
  py::array positions(const char* name, const py::object& object);

  // A fresh array, or `given` if it is fit to be written to: same type and shape, contiguous,
  // writeable, sharing no memory with an input or another result. An elementwise operation may
  // write over the inputs named in `in_place`, exactly.
  py::array output(const py::object& given, const Shape& shape,
                   const std::vector<py::array>& in_place = {});
  py::array output_positions(const py::object& given, const Shape& shape);
  // An array that the operation updates.
  py::array updated(const char* name, const py::object& object);

  // The members of out=, or that many None. The first may be None where it is not wanted.
  std::vector<py::object> outputs(const py::object& out, std::size_t count,
                                  bool first_unused = false) const;

  const std::string& op() const { return op_; }
  [[noreturn]] void value_error(const std::string& what) const;
  [[noreturn]] void type_error(const std::string& what) const;

  // f(ops, T(), workspace) with the active backend's table for the operands' type, without the
  // interpreter's lock, and with the workspace that size(ops, workers) asks for. While a program is
  // recorded, f is kept: it holds its arrays by value.
  template <class Size, class F>
  void run_with_workspace(Size size, F f) const {
    const Backend& backend = active_backend();
    if (type_ == Type::f64) {
      launch(backend.f64, size, f);
    } else {
      launch(backend.f32, size, f);
    }
  }

  // f(ops, T()), for an operation that needs no workspace.
  template <class F>
  void run(F f) const {
    run_with_workspace([](const auto&, int) { return int64_t{0}; },
                       [f](const auto& ops, auto zero, const Workspace&) { f(ops, zero); });
  }

 private:
  enum class Type { unknown, f32, f64 };

  template <class T, class Size, class F>
  void launch(const Ops<T>& ops, Size size, F f) const {
    const int workers = num_threads();
    const int64_t bytes = size(ops, workers);
    const std::shared_ptr<Program> program = Program::recording();
    if (program) require_lasting();
    {
      const Unlocked unlocked;
      f(ops, T(), Workspace{scratch(static_cast<std::size_t>(bytes)), workers});
    }
    if (program) {  // only what succeeded
      program->add([&ops, f](const Workspace& workspace) { f(ops, T(), workspace); }, bytes,
                   workers);
    }
  }

  // A program replays on the arrays it was recorded with, so none may be a passing copy.
  void require_lasting() const;
  void require_dense(const std::string& name, const py::array& array) const;
  py::array keep(const char* name, const py::array& given, const py::array& used);
  py::array accept(const char* name, const py::object& object, int rank, bool bytes = false);
  py::array accept_output(const std::string& name, const py::object& given, const Shape& shape,
                          const py::dtype& type, const std::vector<py::array>& in_place);
  void note(const char* name, const py::array& array);

  std::string op_;
  Type type_ = Type::unknown;
  std::string first_name_, copied_;
  std::vector<py::array> inputs_, results_;
};

template <class T>
const T* data(const py::array& array) {
  return static_cast<const T*>(array.data());
}
// For arrays that `output` or `updated` found writeable.
template <class T>
T* mutable_data(const py::array& array) {
  return static_cast<T*>(const_cast<void*>(array.data()));
}
inline int64_t dim(const py::array& array, int axis) {
  return static_cast<int64_t>(array.shape(axis));
}
Shape shape_of(const py::array& array);

// Every element of an array of `integers` lies in [0, end), or ValueError that begins with `what`.
// Part of the operation: a program asks again at every replay.
// The count comes from the time of the call: an array's own idea of it can be changed later.
void require_in_range(const char* what, const py::array& indices, int64_t count, int64_t end);

}  // namespace chainrule::bindings
