#include "bindings/array_view.h"

#include <bit>
#include <iterator>
#include <stdexcept>

namespace chainrule::bindings {
namespace {

struct Description {
  const char* name;
  char kind;
  int64_t size;
};

// In the order of DType.
constexpr Description descriptions[] = {
    {"other", '?', 0},  {"float32", 'f', 4}, {"float64", 'f', 8}, {"uint8", 'u', 1},
    {"uint16", 'u', 2}, {"int64", 'i', 8},   {"uint64", 'u', 8},
};

const Description& description_of(DType type) {
  return descriptions[static_cast<std::size_t>(type)];
}

}  // namespace

const char* name_of(DType type) { return description_of(type).name; }
int64_t size_of(DType type) { return description_of(type).size; }

py::dtype numpy_dtype(DType type) {
  switch (type) {
    case DType::f32:
      return py::dtype::of<float>();
    case DType::f64:
      return py::dtype::of<double>();
    case DType::u8:
      return py::dtype::of<uint8_t>();
    case DType::u16:
      return py::dtype::of<uint16_t>();
    case DType::i64:
      return py::dtype::of<int64_t>();
    case DType::u64:
      return py::dtype::of<uint64_t>();
    case DType::other:
      break;
  }
  throw std::logic_error("numpy_dtype: no NumPy dtype for this type");
}

DType dtype_of(const py::dtype& dtype) {
  constexpr char swapped = std::endian::native == std::endian::little ? '>' : '<';
  if (dtype.byteorder() == swapped) return DType::other;
  for (std::size_t i = 1; i < std::size(descriptions); ++i) {
    if (descriptions[i].kind == dtype.kind() && descriptions[i].size == dtype.itemsize()) {
      return static_cast<DType>(i);
    }
  }
  return DType::other;
}

void require_unmasked(const char* op, const char* name, const py::handle& object) {
  // Only subclasses of ndarray can be masked. The attribute is tested, because the class is in a
  // module that may not be imported.
  const PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type == py::detail::npy_api::get().PyArray_Type_ || !py::isinstance<py::array>(object))
    return;
  if (!py::hasattr(object, "mask") || !py::hasattr(object, "filled")) return;
  throw py::type_error(std::string(op) + ": " + name +
                       " must have no mask, got a masked array: pass " + name + ".filled(value)");
}

int64_t ArrayRef::size() const {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  return count;
}

py::object pin_memory(const ArrayRef& ref) {
  py::handle owner = ref.object;
  if (!py::isinstance<py::array>(owner)) return {};
  for (;;) {
    PyObject* const base = py::detail::array_proxy(owner.ptr())->base;
    if (!base || !py::isinstance<py::array>(base)) break;
    owner = base;
  }
  return py::weakref(owner);
}

bool has_memory(const ArrayRef& ref) {
  if (!py::isinstance<py::array>(ref.object)) return true;
  const auto array = py::reinterpret_borrow<py::array>(ref.object);
  return array.data() == ref.data && array.nbytes() >= ref.nbytes();
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace chainrule::bindings
