#include "bindings/scalars.h"

#include <cmath>

namespace chainrule::bindings {
namespace {

std::string repr_of(const py::handle& object) { return py::repr(object).cast<std::string>(); }

// The kind of a NumPy scalar, or of a NumPy array without dimensions: 'f', 'i', 'u', 'b', ...
// ' ' for another array, 0 for another object.
char numpy_kind(const py::handle& object) {
  PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type == &PyFloat_Type || type == &PyLong_Type || type == &PyBool_Type) return 0;
  if (py::isinstance<py::array>(object)) {
    const py::array array = py::reinterpret_borrow<py::array>(object);
    const bool masked = py::hasattr(object, "mask") && py::hasattr(object, "filled");
    return array.ndim() == 0 && !masked ? array.dtype().kind() : ' ';
  }
  if (!py::hasattr(object, "dtype")) return 0;
  const py::object dtype = object.attr("dtype");
  return py::isinstance<py::dtype>(dtype) ? dtype.cast<py::dtype>().kind() : '\0';
}

// A Python integer, so that the error message can show values beyond 64 bits.
py::int_ python_integer(const Call& call, const char* name, const py::handle& object,
                        const char* rule) {
  const char kind = numpy_kind(object);
  const bool refused = PyBool_Check(object.ptr()) || (kind && kind != 'i' && kind != 'u');
  PyObject* const index = refused ? nullptr : PyNumber_Index(object.ptr());
  if (!index) {
    PyErr_Clear();
    call.type_error(std::string(name) + " must be " + rule + ", got " + repr_of(object));
  }
  return py::reinterpret_steal<py::int_>(index);
}

int64_t checked_range(const Call& call, const char* name, const py::int_& index, int64_t minimum,
                      int64_t maximum) {
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow < 0 || (overflow == 0 && value < minimum)) {
    call.value_error(std::string(name) + " must be at least " + std::to_string(minimum) + ", got " +
                     repr_of(index));
  }
  if (overflow > 0 || value > maximum) {
    call.value_error(std::string(name) + " must be at most " + std::to_string(maximum) + ", got " +
                     repr_of(index));
  }
  return value;
}

}  // namespace

int64_t integer(const Call& call, const char* name, const py::handle& object, int64_t minimum,
                int64_t maximum) {
  return checked_range(call, name, python_integer(call, name, object, "an integer"), minimum,
                       maximum);
}

uint64_t unsigned_integer(const Call& call, const char* name, const py::handle& object) {
  const py::int_ index = python_integer(call, name, object, "an integer");
  const unsigned long long value = PyLong_AsUnsignedLongLong(index.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    call.value_error(std::string(name) + " must be in [0, 2**64), got " + repr_of(index));
  }
  return value;
}

std::string text(const Call& call, const char* name, const py::handle& object) {
  if (!py::isinstance<py::str>(object)) {
    call.type_error(std::string(name) + " must be a string, got " + repr_of(object));
  }
  return object.cast<std::string>();
}

bool boolean(const Call& call, const char* name, const py::handle& object) {
  const bool is_bool = PyBool_Check(object.ptr()) || numpy_kind(object) == 'b';
  const int truth = is_bool ? PyObject_IsTrue(object.ptr()) : -1;
  if (truth < 0) {
    PyErr_Clear();
    call.type_error(std::string(name) + " must be True or False, got " + repr_of(object));
  }
  return truth == 1;
}

double number(const Call& call, const char* name, const py::handle& object) {
  // Python would take True as 1, a complex number of NumPy without its imaginary part, and an array
  // with one element.
  const char kind = numpy_kind(object);
  const bool refused =
      PyBool_Check(object.ptr()) || (kind && kind != 'f' && kind != 'i' && kind != 'u');
  const double value = refused ? -1.0 : PyFloat_AsDouble(object.ptr());
  if (refused || PyErr_Occurred()) {
    PyErr_Clear();
    call.type_error(std::string(name) + " must be a number, got " + repr_of(object));
  }
  if (!std::isfinite(value)) {
    call.value_error(std::string(name) + " must be finite, got " + repr_of(object));
  }
  return value;
}

ReplayScalar<double> replay_number(Call& call, const char* name, const py::object& object) {
  ArrayView array;
  if (call.replay_array(name, object, DType::f64, array)) return ReplayScalar<double>(array);
  return ReplayScalar<double>(number(call, name, object));
}

ReplayScalar<uint64_t> replay_unsigned(Call& call, const char* name, const py::object& object) {
  ArrayView array;
  if (call.replay_array(name, object, DType::u64, array)) return ReplayScalar<uint64_t>(array);
  return ReplayScalar<uint64_t>(unsigned_integer(call, name, object));
}

std::pair<int64_t, int64_t> pair(const Call& call, const char* name, const py::handle& object,
                                 int64_t minimum, int64_t maximum) {
  const char* const rule = "an integer or a pair (rows, columns)";
  if (py::isinstance<py::tuple>(object) || py::isinstance<py::list>(object)) {
    const py::sequence members = py::reinterpret_borrow<py::sequence>(object);
    if (members.size() != 2) {
      call.value_error(std::string(name) + " must be " + rule + ", got " + repr_of(object));
    }
    return {integer(call, name, members[0], minimum, maximum),
            integer(call, name, members[1], minimum, maximum)};
  }
  const py::int_ both = python_integer(call, name, object, rule);
  const int64_t value = checked_range(call, name, both, minimum, maximum);
  return {value, value};
}

bool is_relu(const Call& call, const py::object& activation) {
  if (activation.is_none()) return false;
  if (py::isinstance<py::str>(activation) && activation.cast<std::string>() == "relu") return true;
  call.value_error("activation must be None or \"relu\", got " + repr_of(activation));
}

Shape image_shape(const Call& call, const char* name, const py::object& object) {
  if ((!py::isinstance<py::tuple>(object) && !py::isinstance<py::list>(object)) ||
      py::len(object) != 4) {
    call.value_error(std::string(name) + " must be (batch, height, width, channels), got " +
                     repr_of(object));
  }
  Shape shape;
  for (const py::handle& member : py::reinterpret_borrow<py::sequence>(object)) {
    shape.push_back(integer(call, name, member, 0, max_axis));
  }
  return shape;
}

int64_t output_size(int64_t length, int64_t window, int64_t stride) {
  return (length - window) / stride + 1;
}

}  // namespace chainrule::bindings
