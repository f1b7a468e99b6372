// chainrule.cuda.Array, an owner of GPU memory, and its exchange with other libraries.
#pragma once

#include <memory>

#include "bindings/device.h"
#include "cuda/runtime/stream.h"

namespace chainrule::bindings {

const Device& gpu();
// RuntimeError, beginning with `who` and giving the reason, if no GPU can be used.
void require_gpu(const std::string& who);

// Returns the number of elements of an array of `shape`. ValueError if no such array can exist.
int64_t element_count(const Shape& shape);

class CudaArray {
 public:
  // New memory with undefined contents.
  CudaArray(DType type, const Shape& shape);
  // Contiguous memory that `owner` keeps alive, ready for work on `stream`.
  CudaArray(std::shared_ptr<void> owner, void* data, DType type, const Shape& shape,
            cuda::Stream stream, bool read_only)
      : owner_(std::move(owner)),
        data_(data),
        shape_(shape),
        type_(type),
        stream_(stream),
        read_only_(read_only) {}

  ArrayRef ref(const py::object& self) const {
    return {self, data_, shape_, type_, &gpu(), stream_};
  }
  void* data() const { return data_; }
  const Shape& shape() const { return shape_; }
  DType type() const { return type_; }
  cuda::Stream stream() const { return stream_; }
  bool read_only() const { return read_only_; }
  int64_t size() const;
  int64_t nbytes() const { return size() * size_of(type_); }

  py::array numpy() const;
  // Copies all elements from an array of this shape and dtype, on either device.
  void fill(const py::object& source);
  CudaArray copy() const;
  // An array that views the same memory, from byte `offset` on.
  CudaArray part(int64_t offset, const Shape& shape, DType type) const;
  py::dict cuda_array_interface() const;  // __cuda_array_interface__

 private:
  std::shared_ptr<void> owner_;
  void* data_;
  Shape shape_;
  DType type_;
  cuda::Stream stream_;
  bool read_only_ = false;
};

// Returns NumPy arrays and CudaArrays as they are. An object with DLPack or
// __cuda_array_interface__ becomes a NumPy array or CudaArray on the same memory, without a copy.
// Other objects are returned unchanged. TypeError or ValueError, beginning with `op`, if the array
// is masked, if its library cannot export it, or if memory on a GPU cannot be used in place.
py::object import_array(const char* op, const char* name, const py::object& object);

// Returns a DLPack capsule of the array. `stream` is the consumer's, in the protocol's encoding.
py::capsule export_dlpack(const CudaArray& array, const py::object& stream,
                          const py::object& max_version);

}  // namespace chainrule::bindings
