// chainrule.cuda.Array: a plain owner of device memory, and how arrays get there and back.
#pragma once

#include <memory>

#include "bindings/device.h"
#include "cuda/runtime/stream.h"

namespace chainrule::bindings {

const Device& gpu();
// RuntimeError that begins with `who` and says why, where no GPU can be used.
void require_gpu(const std::string& who);

// How many elements an array has; ValueError where there can be none of that shape.
int64_t elements(const Shape& shape);

class CudaArray {
 public:
  // Fresh memory, its contents undefined.
  CudaArray(Type type, const Shape& shape);
  // Memory that `owner` keeps, dense and row-major, ready for work on `stream`.
  CudaArray(std::shared_ptr<void> owner, void* data, Type type, const Shape& shape,
            cuda::Stream stream, bool read_only)
      : owner_(std::move(owner)),
        data_(data),
        shape_(shape),
        type_(type),
        stream_(stream),
        read_only_(read_only) {}

  Held held(const py::object& self) const { return {self, data_, shape_, type_, &gpu(), stream_}; }
  void* data() const { return data_; }
  const Shape& shape() const { return shape_; }
  Type type() const { return type_; }
  cuda::Stream stream() const { return stream_; }
  bool read_only() const { return read_only_; }
  int64_t size() const;
  int64_t nbytes() const { return size() * size_of(type_); }

  py::array numpy() const;
  // Takes over the elements of an array of this shape and dtype, on either device.
  void fill(const py::object& source);
  CudaArray copy() const;
  // The bytes from `offset` on as an array of its own, in the same memory.
  CudaArray part(int64_t offset, const Shape& shape, Type type) const;
  py::dict interface() const;  // __cuda_array_interface__

 private:
  std::shared_ptr<void> owner_;
  void* data_;
  Shape shape_;
  Type type_;
  cuda::Stream stream_;
  bool read_only_ = false;
};

// An object as an array that is known here, without a copy: a NumPy array, a CudaArray, or what
// shares its memory by DLPack or __cuda_array_interface__. Anything else as it is. TypeError or
// ValueError that begins with `op` where memory on a GPU cannot be used as it is.
py::object adopted(const char* op, const py::object& object);

// A DLPack capsule of the array, for work on `stream` as the protocol writes it.
py::capsule exported(const CudaArray& array, const py::object& stream,
                     const py::object& max_version);

}  // namespace chainrule::bindings
