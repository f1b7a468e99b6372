#include "bindings/array_view.h"

#include <bit>
#include <iterator>
#include <stdexcept>

namespace chainrule::bindings {
namespace {

struct Row {
  const char* name;
  char kind;
  int64_t size;
};

// In the order of Type.
constexpr Row rows[] = {
    {"other", '?', 0},  {"float32", 'f', 4}, {"float64", 'f', 8}, {"uint8", 'u', 1},
    {"uint16", 'u', 2}, {"int64", 'i', 8},   {"uint64", 'u', 8},
};

const Row& row_of(Type type) { return rows[static_cast<std::size_t>(type)]; }

}  // namespace

const char* name_of(Type type) { return row_of(type).name; }
int64_t size_of(Type type) { return row_of(type).size; }

py::dtype dtype_of(Type type) {
  switch (type) {
    case Type::f32:
      return py::dtype::of<float>();
    case Type::f64:
      return py::dtype::of<double>();
    case Type::u8:
      return py::dtype::of<uint8_t>();
    case Type::u16:
      return py::dtype::of<uint16_t>();
    case Type::i64:
      return py::dtype::of<int64_t>();
    case Type::u64:
      return py::dtype::of<uint64_t>();
    case Type::other:
      break;
  }
  throw std::logic_error("dtype_of: no type");
}

Type type_of(const py::dtype& dtype) {
  constexpr char swapped = std::endian::native == std::endian::little ? '>' : '<';
  if (dtype.byteorder() == swapped) return Type::other;
  for (std::size_t i = 1; i < std::size(rows); ++i) {
    if (rows[i].kind == dtype.kind() && rows[i].size == dtype.itemsize()) {
      return static_cast<Type>(i);
    }
  }
  return Type::other;
}

int64_t Held::size() const {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  return count;
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
