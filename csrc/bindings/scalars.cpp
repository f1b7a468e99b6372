#include "bindings/scalars.h"

#include <cmath>

namespace chainrule::bindings {
namespace {

std::string text_of(const py::handle& object) { return py::repr(object).cast<std::string>(); }

// Python's own integer, so that a size beyond 64 bits is refused by its value.
py::int_ as_index(const Call& call, const char* name, const py::handle& object,
                  const char* wanted) {
  PyObject* const index = PyBool_Check(object.ptr()) ? nullptr : PyNumber_Index(object.ptr());
  if (!index) {
    PyErr_Clear();
    call.type_error(std::string(name) + " must be " + wanted + ", got " + text_of(object));
  }
  return py::reinterpret_steal<py::int_>(index);
}

int64_t in_range(const Call& call, const char* name, const py::int_& index, int64_t least,
                 int64_t most) {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow < 0 || (overflow == 0 && value < least)) {
    call.value_error(std::string(name) + " must be at least " + std::to_string(least) + ", got " +
                     text_of(index));
  }
  if (overflow > 0 || value > most) {
    call.value_error(std::string(name) + " must be at most " + std::to_string(most) + ", got " +
                     text_of(index));
  }
  return value;
}

}  // namespace

int64_t integer(const Call& call, const char* name, const py::handle& object, int64_t least,
                int64_t most) {
  return in_range(call, name, as_index(call, name, object, "an integer"), least, most);
}

uint64_t unsigned_integer(const Call& call, const char* name, const py::handle& object) {
  const py::int_ index = as_index(call, name, object, "an integer");
  const unsigned long long value = PyLong_AsUnsignedLongLong(index.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    call.value_error(std::string(name) + " must lie in [0, 2**64), got " + text_of(index));
  }
  return value;
}

double number(const Call& call, const char* name, const py::handle& object) {
  const double value = PyBool_Check(object.ptr()) ? -1.0 : PyFloat_AsDouble(object.ptr());
  if (PyBool_Check(object.ptr()) || PyErr_Occurred()) {
    PyErr_Clear();
    call.type_error(std::string(name) + " must be a number, got " + text_of(object));
  }
  if (!std::isfinite(value)) {
    call.value_error(std::string(name) + " must be finite, got " + text_of(object));
  }
  return value;
}

Cell<double> number_cell(Call& call, const char* name, const py::object& object) {
  Operand array;
  if (call.cell(name, object, Type::f64, array)) return Cell<double>(array);
  return Cell<double>(number(call, name, object));
}

Cell<uint64_t> unsigned_cell(Call& call, const char* name, const py::object& object) {
  Operand array;
  if (call.cell(name, object, Type::u64, array)) return Cell<uint64_t>(array);
  return Cell<uint64_t>(unsigned_integer(call, name, object));
}

std::pair<int64_t, int64_t> pair(const Call& call, const char* name, const py::handle& object,
                                 int64_t least, int64_t most) {
  if (py::isinstance<py::tuple>(object) || py::isinstance<py::list>(object)) {
    const py::sequence members = py::reinterpret_borrow<py::sequence>(object);
    if (members.size() != 2) {
      call.value_error(std::string(name) + " must be an integer or a pair, got " + text_of(object));
    }
    return {integer(call, name, members[0], least, most),
            integer(call, name, members[1], least, most)};
  }
  const py::int_ both = as_index(call, name, object, "an integer or a pair");
  const int64_t value = in_range(call, name, both, least, most);
  return {value, value};
}

bool is_relu(const Call& call, const py::object& activation) {
  if (activation.is_none()) return false;
  if (py::isinstance<py::str>(activation) && activation.cast<std::string>() == "relu") return true;
  std::string came = text_of(activation);
  if (py::isinstance<py::str>(activation)) came = '"' + activation.cast<std::string>() + '"';
  call.value_error("activation must be None or \"relu\", got " + came);
}

Shape image_shape(const Call& call, const char* name, const py::object& object) {
  if ((!py::isinstance<py::tuple>(object) && !py::isinstance<py::list>(object)) ||
      py::len(object) != 4) {
    call.value_error(std::string(name) + " must be (batch, height, width, channels), got " +
                     text_of(object));
  }
  Shape shape;
  for (const py::handle& member : py::reinterpret_borrow<py::sequence>(object)) {
    shape.push_back(integer(call, name, member, 0, longest_axis));
  }
  return shape;
}

int64_t window_positions(int64_t length, int64_t window, int64_t stride) {
  return (length - window) / stride + 1;
}

}  // namespace chainrule::bindings
