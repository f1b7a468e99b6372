// What an operation is given and what it gives back, wherever it lies.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace chainrule::bindings {

namespace py = pybind11;
using Shape = std::vector<int64_t>;

// The element types that kernels read and write; `other` is any that they do not.
enum class Type : uint8_t { other, f32, f64, u8, u16, i64, u64 };

const char* name_of(Type type);  // as NumPy names it
int64_t size_of(Type type);
py::dtype dtype_of(Type type);
Type type_of(const py::dtype& dtype);

class Device;

// One array of a call. The call owns it.
struct Held {
  py::object object = {};  // keeps the memory
  const void* data = nullptr;
  Shape shape = {};
  Type type = Type::other;
  const Device* device = nullptr;  // null: the object is no array
  void* stream = nullptr;          // that the device orders work on this memory by, if any

  int64_t size() const;
  int64_t nbytes() const { return size() * size_of(type); }
};

// An array as an operation's body sees it. Lives as long as its call, but for its device and the
// memory's address: that is what a recorded kernel call keeps, and the program keeps the arrays.
class Operand {
 public:
  Operand() = default;
  explicit Operand(const Held& held)
      : held_(&held), data_(const_cast<void*>(held.data)), device_(held.device) {}

  void* data() const { return data_; }
  const Device& device() const { return *device_; }

  const Shape& shape() const { return held_->shape; }
  int ndim() const { return static_cast<int>(held_->shape.size()); }
  int64_t size() const { return held_->size(); }
  Type type() const { return held_->type; }
  const py::object& object() const { return held_->object; }
  bool is(const Held& held) const { return held_ == &held; }

 private:
  const Held* held_ = nullptr;
  void* data_ = nullptr;
  const Device* device_ = nullptr;
};

template <class T>
const T* data(const Operand& array) {
  return static_cast<const T*>(array.data());
}
// For arrays that `output` or `updated` found writeable.
template <class T>
T* mutable_data(const Operand& array) {
  return static_cast<T*>(array.data());
}
inline int64_t dim(const Operand& array, int axis) {
  return array.shape()[static_cast<std::size_t>(axis)];
}
inline const Shape& shape_of(const Operand& array) { return array.shape(); }

std::string to_string(const Shape& shape);  // "(2, 3)"

}  // namespace chainrule::bindings
