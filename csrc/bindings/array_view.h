// Arrays of a call, in the memory of any device.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace chainrule::bindings {

namespace py = pybind11;
using Shape = std::vector<int64_t>;

// Element types that kernels read and write. `other` is every other type.
enum class DType : uint8_t { other, f32, f64, u8, u16, i64, u64 };

const char* name_of(DType type);  // NumPy's name
int64_t size_of(DType type);
py::dtype numpy_dtype(DType type);
DType dtype_of(const py::dtype& dtype);

// TypeError for a masked array, whose mask every operation would lose.
void require_unmasked(const char* op, const char* name, const py::handle& object);

class Device;

// One array of a call: its memory and a reference that keeps it. The call owns the ArrayRef.
struct ArrayRef {
  py::object object = {};  // keeps the memory alive
  const void* data = nullptr;
  Shape shape = {};
  DType type = DType::other;
  const Device* device = nullptr;  // null if the object is not an array
  void* stream = nullptr;          // orders the device's work on this memory; may be null

  int64_t size() const;
  int64_t nbytes() const { return size() * size_of(type); }
};

// Returns an object that keeps the array's memory at its address: a weak reference to the NumPy
// array that owns the memory. NumPy then refuses resize(refcheck=False), too. Null if the memory
// has another owner.
py::object pin_memory(const ArrayRef& ref);
// Returns false if a NumPy array has been resized since `ref` was made.
bool has_memory(const ArrayRef& ref);

// A view of an ArrayRef, for the body of an operation. Shape, type and object are valid during the
// call only. Device and address stay valid: a recorded kernel call stores them, and the program
// keeps the arrays alive.
class ArrayView {
 public:
  ArrayView() = default;
  explicit ArrayView(const ArrayRef& ref)
      : ref_(&ref), data_(const_cast<void*>(ref.data)), device_(ref.device) {}

  void* data() const { return data_; }
  const Device& device() const { return *device_; }

  const Shape& shape() const { return ref_->shape; }
  int ndim() const { return static_cast<int>(ref_->shape.size()); }
  int64_t size() const { return ref_->size(); }
  DType type() const { return ref_->type; }
  const py::object& object() const { return ref_->object; }
  bool is(const ArrayRef& ref) const { return ref_ == &ref; }

 private:
  const ArrayRef* ref_ = nullptr;
  void* data_ = nullptr;
  const Device* device_ = nullptr;
};

template <class T>
const T* data(const ArrayView& array) {
  return static_cast<const T*>(array.data());
}
// Only for arrays that `output`, `updated` or `gpu_buffer` has checked to be writeable.
template <class T>
T* mutable_data(const ArrayView& array) {
  return static_cast<T*>(array.data());
}
inline int64_t dim(const ArrayView& array, int axis) {
  return array.shape()[static_cast<std::size_t>(axis)];
}
inline const Shape& shape_of(const ArrayView& array) { return array.shape(); }

std::string to_string(const Shape& shape);  // "(2, 3)"

}  // namespace chainrule::bindings
