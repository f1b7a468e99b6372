#include "bindings/array.h"

#include <cxxabi.h>
#include <unistd.h>

namespace chainrule::bindings {
namespace {

bool is_real(const py::dtype& type) {
  return type.kind() == 'f' && (type.itemsize() == 4 || type.itemsize() == 8) &&
         type.byteorder() != '>' && type.byteorder() != '<';
}

std::string name_of(const py::dtype& type) { return py::str(type).cast<std::string>(); }

constexpr int dense =
    py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;

std::string dimensions(int rank) {
  return std::to_string(rank) + (rank == 1 ? " dimension" : " dimensions");
}

bool is_dense(const py::array& array) { return (array.flags() & dense) == dense; }

// Dense, through a copy if it is not.
py::array dense_copy(const py::array& array) {
  if (is_dense(array)) return array;
  // NumPy copies a contiguous but misaligned array only when it is told to.
  return py::module_::import("numpy").attr("array")(array, py::arg("order") = "C",
                                                    py::arg("copy") = true);
}

bool same_memory(const py::array& a, const py::array& b) {
  return a.data() == b.data() && a.nbytes() == b.nbytes();
}

bool overlap(const py::array& a, const py::array& b) {
  const char* const first = static_cast<const char*>(a.data());
  const char* const second = static_cast<const char*>(b.data());
  return first < second + b.nbytes() && second < first + a.nbytes();
}

}  // namespace

Unlocked::~Unlocked() {
  try {
    PyEval_RestoreThread(state_);
  } catch (abi::__forced_unwind&) {
    for (;;) ::pause();
  }
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string type_of(const py::handle& object) {
  if (py::isinstance<py::array>(object)) {
    return name_of(py::reinterpret_borrow<py::array>(object).dtype());
  }
  return py::str(py::type::of(object).attr("__name__")).cast<std::string>();
}

Shape shape_of(const py::array& array) {
  return Shape(array.shape(), array.shape() + array.ndim());
}

void require_in_range(const char* what, const py::array& indices, int64_t count, int64_t end) {
  const int64_t* const index = data<int64_t>(indices);
  for (int64_t i = 0; i < count; ++i) {
    if (index[i] < 0 || index[i] >= end) {
      throw py::value_error(std::string(what) + " must lie in [0, " + std::to_string(end) +
                            "), got " + std::to_string(index[i]) + " at index " +
                            std::to_string(i));
    }
  }
}

int64_t product(const std::string& op, const Shape& factors, const Shape& shape) {
  int64_t total = 1;
  for (const int64_t n : factors) {
    if (__builtin_mul_overflow(total, n, &total)) {
      throw py::value_error(op + ": an array of shape " + to_string(shape) +
                            " has more elements than memory can address");
    }
  }
  return total;
}

void Call::value_error(const std::string& what) const { throw py::value_error(op_ + ": " + what); }
void Call::type_error(const std::string& what) const { throw py::type_error(op_ + ": " + what); }

py::array Call::accept(const char* name, const py::object& object, int rank, bool bytes) {
  py::object candidate = object;
  if (!py::isinstance<py::array>(object) && py::hasattr(object, "__dlpack__")) {
    candidate = py::module_::import("numpy").attr("from_dlpack")(object);
  }
  const bool fits = py::isinstance<py::array>(candidate) &&
                    is_real(py::reinterpret_borrow<py::array>(candidate).dtype());
  if (bytes && py::isinstance<py::array_t<uint8_t>>(candidate)) {
    return py::reinterpret_borrow<py::array>(candidate);
  }
  if (!fits) {
    type_error(std::string(name) + " must be a float32" +
               (bytes ? ", float64 or uint8" : " or float64") + " array, got " +
               type_of(candidate));
  }
  const py::array array = py::reinterpret_borrow<py::array>(candidate);
  if (rank >= 0 && array.ndim() != rank) {
    value_error(std::string(name) + " must have " + dimensions(rank) + ", got " +
                std::to_string(array.ndim()));
  }
  note(name, array);
  return array;
}

void Call::note(const char* name, const py::array& array) {
  const Type type = array.itemsize() == 8 ? Type::f64 : Type::f32;
  if (type_ == Type::unknown) {
    type_ = type;
    first_name_ = name;
  } else if (type_ != type) {
    const char* const names[] = {"", "float32", "float64"};
    type_error(first_name_ + " is " + names[static_cast<int>(type_)] + ", " + name + " is " +
               names[static_cast<int>(type)] + ": they must have one dtype");
  }
}

py::array Call::keep(const char* name, const py::array& given, const py::array& used) {
  if (!given.is(used) && copied_.empty()) copied_ = name;
  inputs_.push_back(used);
  return used;
}

void Call::require_lasting() const {
  if (!copied_.empty()) {
    value_error(copied_ +
                " must be C-contiguous, aligned and of the kernel's dtype to be recorded");
  }
}

py::array Call::input(const char* name, const py::object& object, int rank) {
  const py::array given = accept(name, object, rank);
  return keep(name, given, dense_copy(given));
}

py::array Call::integers(const char* name, const py::object& object, int64_t end) {
  py::object candidate = object;
  if (!py::isinstance<py::array>(object) && py::hasattr(object, "__dlpack__")) {
    candidate = py::module_::import("numpy").attr("from_dlpack")(object);
  }
  const bool is_array = py::isinstance<py::array>(candidate);
  const char kind = is_array ? py::reinterpret_borrow<py::array>(candidate).dtype().kind() : ' ';
  if (kind != 'i' && kind != 'u') {
    type_error(std::string(name) + " must be an integer array, got " + type_of(candidate));
  }
  const py::array array = py::reinterpret_borrow<py::array>(candidate);
  if (array.ndim() != 1) {
    value_error(std::string(name) + " must have " + dimensions(1) + ", got " +
                std::to_string(array.ndim()));
  }
  if (kind == 'u' && array.itemsize() == 8) {  // the conversion below would wrap
    const auto wide = py::array_t<uint64_t, py::array::c_style | py::array::forcecast>(array);
    for (int64_t i = 0; i < dim(wide, 0); ++i) {
      if (wide.at(i) >= static_cast<uint64_t>(end)) {
        value_error(std::string(name) + " must lie in [0, " + std::to_string(end) + "), got " +
                    std::to_string(wide.at(i)) + " at index " + std::to_string(i));
      }
    }
  }
  using Indices = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
  return keep(name, array, dense_copy(Indices(array)));
}

py::array Call::source(const py::object& object) {
  const py::array given = accept("source", object, -1, true);
  return keep("source", given, dense_copy(given));
}

void Call::type_from(const py::object& out) {
  if (out.is_none()) {
    type_ = Type::f32;
  } else {
    accept("out", out, -1);
  }
}

py::array Call::positions(const char* name, const py::object& object) {
  if (!py::isinstance<py::array>(object) ||
      !py::reinterpret_borrow<py::array>(object).dtype().equal(py::dtype::of<uint16_t>())) {
    type_error(std::string(name) + " must be the uint16 array that max_pool2d returned, got " +
               type_of(object));
  }
  const py::array given = py::reinterpret_borrow<py::array>(object);
  return keep(name, given, dense_copy(given));
}

void Call::require_dense(const std::string& name, const py::array& array) const {
  if (is_dense(array)) return;
  const bool contiguous = array.flags() & py::array::c_style;
  value_error(name + (contiguous ? " must be aligned in memory" : " must be C-contiguous"));
}

py::array Call::accept_output(const std::string& name, const py::object& given, const Shape& shape,
                              const py::dtype& type, const std::vector<py::array>& in_place) {
  Shape bytes = shape;
  bytes.push_back(static_cast<int64_t>(type.itemsize()));
  product(op_, bytes, shape);
  if (given.is_none()) {
    results_.emplace_back(type, shape);
    return results_.back();
  }
  const std::string wanted = name_of(type);
  if (!py::isinstance<py::array>(given)) {
    type_error(name + " must be a " + wanted + " array, got " + type_of(given));
  }
  const py::array array = py::reinterpret_borrow<py::array>(given);
  if (!array.dtype().equal(type))
    type_error(name + " must be " + wanted + ", got " + type_of(array));
  if (shape_of(array) != shape) {
    value_error(name + " must have shape " + to_string(shape) + ", got " +
                to_string(shape_of(array)));
  }
  if (!array.writeable()) value_error(name + " is read-only");
  require_dense(name, array);
  for (const py::array& input : inputs_) {
    bool allowed = false;
    for (const py::array& candidate : in_place) {
      allowed = allowed || (candidate.is(input) && same_memory(candidate, array));
    }
    if (!allowed && overlap(input, array)) value_error(name + " overlaps an input");
  }
  for (const py::array& other : results_) {
    if (overlap(other, array)) value_error(name + " overlaps another output");
  }
  results_.push_back(array);
  return array;
}

py::array Call::output(const py::object& given, const Shape& shape,
                       const std::vector<py::array>& in_place) {
  const py::dtype type = type_ == Type::f64 ? py::dtype::of<double>() : py::dtype::of<float>();
  return accept_output("out", given, shape, type, in_place);
}

py::array Call::output_positions(const py::object& given, const Shape& shape) {
  return accept_output("out", given, shape, py::dtype::of<uint16_t>(), {});
}

py::array Call::updated(const char* name, const py::object& object) {
  const py::array array = accept(name, object, -1);
  if (!array.writeable()) value_error(std::string(name) + " is read-only");
  require_dense(name, array);
  for (const py::array& input : inputs_) {
    if (overlap(input, array)) value_error(std::string(name) + " overlaps another argument");
  }
  inputs_.push_back(array);
  return array;
}

std::vector<py::object> Call::outputs(const py::object& out, std::size_t count,
                                      bool first_unused) const {
  if (out.is_none()) return std::vector<py::object>(count, py::none());
  if (!py::isinstance<py::tuple>(out) || py::len(out) != count) {
    const std::string came = py::isinstance<py::tuple>(out)
                                 ? "a tuple of " + std::to_string(py::len(out))
                                 : type_of(out);
    type_error("out must be a tuple of " + std::to_string(count) + " arrays, got " + came);
  }
  std::vector<py::object> members;
  for (const py::handle& member : py::reinterpret_borrow<py::tuple>(out)) {
    if (member.is_none() && !(first_unused && members.empty())) {
      type_error("out must be a tuple of " + std::to_string(count) +
                 " arrays, got None among them");
    }
    members.push_back(py::reinterpret_borrow<py::object>(member));
  }
  return members;
}

}  // namespace chainrule::bindings
