// Arguments as kernels want them: checked, dense, and typed. Every entry point comes through here,
// and behind it nobody checks anything again.
#pragma once

#include <pybind11/typing.h>

#include <array>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bindings/array_view.h"
#include "bindings/device.h"
#include "bindings/program.h"
#include "core/ops.h"
#include "cpu/threads.h"

namespace chainrule::bindings {

using Pair = py::typing::Tuple<py::object, py::object>;

std::string type_of(const py::handle& object);  // "int64" for an array, else the type's name
// The product, or ValueError when it does not fit 63 bits.
// Speaks of an array of `shape`, which may lack factors such as the size of an element.
int64_t product(const std::string& op, const Shape& factors, const Shape& shape);
// A factor of such products: the copies of an operand that workspaces hold, in bytes, over all
// threads that there can be; with room to round up.
constexpr int64_t most_copies = int64_t{1} << 18;

// One call of an operation: holds its operands, so that their types and the devices they lie on can
// be compared, and its results checked against overlap.
class Call {
 public:
  // On `device`, or, where none is given, where the first operand lies.
  explicit Call(const char* op, const Device* device = nullptr) : op_(op), device_(device) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // A float32 or float64 array of `rank` dimensions (any, if negative), of the same type as those
  // before. Not contiguous or not aligned: through a copy. An object with __dlpack__ is adopted.
  Operand input(const char* name, const py::object& object, int rank = -1);
  // Integers of any width as a dense int64 array of one dimension.
  // Those of uint64 that int64 lacks are refused as not below `end`.
  Operand integers(const char* name, const py::object& object, int64_t end);
  // What `gather` takes rows from: like an input, or bytes, which have no say in the type.
  Operand source(const py::object& object);
  // The type of the operands is that of the result: float32 when none is given.
  void type_from(const py::object& out);
  // An optional bias of `count` elements, one for each of the weight's `outputs`.
  Operand bias(const py::object& object, int64_t count, const char* outputs);
  // What `max_pool2d` returned as argmax.
  Operand positions(const char* name, const py::object& object);
  // An array of no dimensions that holds one `type`; false where it is none.
  bool cell(const char* name, const py::object& object, Type type, Operand& found);

  // A fresh array, or `given` if it is fit to be written to: same type and shape, contiguous,
  // writeable, sharing no memory with an input or another result. An elementwise operation may
  // write over the inputs named in `in_place`, exactly.
  Operand output(const py::object& given, const Shape& shape,
                 const std::vector<Operand>& in_place = {});
  Operand output_positions(const py::object& given, const Shape& shape);
  // An array that the operation updates.
  Operand updated(const char* name, const py::object& object);

  // An array of this type that lies where the others do, dense; a result is writeable.
  Operand fixed(const char* name, const py::object& object, Type type, int64_t least_size);

  // The members of out=, or that many None. The first may be None where it is not wanted.
  std::vector<py::object> outputs(const py::object& out, std::size_t count,
                                  bool first_unused = false) const;

  const char* op() const { return op_; }
  const Device& device() const { return device_ ? *device_ : cpu(); }
  [[noreturn]] void value_error(const std::string& what) const;
  [[noreturn]] void type_error(const std::string& what) const;

  // f(ops, T(), workspace) with the table of the device where the operands lie, for their type,
  // without the interpreter's lock, and with the workspace that size(ops, workers) asks for. While
  // a program is recorded, f is kept: of its operands it may then use the memory alone.
  template <class Size, class F>
  void run_with_workspace(Size size, F f) const {
    const Backend& backend = device().backend();
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
  template <class T, class Size, class F>
  void launch(const Ops<T>& ops, Size size, F f) const {
    const int workers = num_threads();
    const int64_t bytes = size(ops, workers);
    const auto step = [&ops, f](const Workspace& workspace) { f(ops, T(), workspace); };
    const std::shared_ptr<Program> program = Program::recording();
    if (!program) return device().run(op_, bytes, workers, Work(step), arrays());
    require_recordable(*program);
    Step kept = device().recordable(step);
    device().run(op_, bytes, workers, Work(kept), arrays());
    program->add(device(), std::move(kept), bytes, workers, arrays());  // only what succeeded
  }

  // A program replays on the arrays it was recorded with, so none may be a passing copy.
  void require_recordable(const Program& program) const;
  std::span<const Held> arrays() const { return {held_.data(), count_}; }

  // What `adopted` makes of an object; the error names this operation.
  py::object adopt(const py::object& object) const;
  Held accept(const char* name, const py::object& object, int rank, bool bytes = false);
  Held dense(const char* name, Held given);
  Operand accept_output(const char* name, const py::object& given, const Shape& shape, Type type,
                        const std::vector<Operand>& in_place);
  void require_writeable(const char* name, const Held& held) const;
  void note_type(const char* name, Type type);
  void note_device(const char* name, const Held& held);
  Operand integers_on_device(const char* name, const Held& held);
  Operand hold(Held held, bool result);

  // More than any operation has; in one place, so that operands can point at them.
  static constexpr std::size_t most = 9;

  const char* op_;
  const Device* device_;
  const char* first_on_device_ = "the call";
  Type type_ = Type::other;
  const char* first_of_type_ = nullptr;
  const char* copied_ = nullptr;
  std::array<Held, most> held_;
  std::array<bool, most> result_{};
  std::size_t count_ = 0;
};

// The first `count` elements of an array where the host can read them: null where it cannot.
template <class T>
class Looked {
 public:
  Looked(const Operand& array, int64_t count) {
    if (&array.device() == &cpu()) {
      data_ = bindings::data<T>(array);
      return;
    }
    copy_.resize(static_cast<std::size_t>(count));
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    if (array.device().look(array.data(), bytes, copy_.data())) data_ = copy_.data();
  }
  explicit operator bool() const { return data_ || copy_.empty(); }
  const T* data() const { return data_; }
  T operator[](int64_t i) const { return data_[i]; }

 private:
  std::vector<T> copy_ = {};
  const T* data_ = nullptr;
};

// Every element of an array of `integers` lies in [0, end), or ValueError that begins with `what`.
// Part of the operation: a program asks again at every replay.
// The count comes from the time of the call: an array's own idea of it can be changed later.
void require_in_range(const char* what, const Operand& indices, int64_t count, int64_t end);

}  // namespace chainrule::bindings
