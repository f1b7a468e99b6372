#include "bindings/cuda_array.h"

#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

std::shared_ptr<void> device_memory(int64_t bytes, cuda::Stream stream) {
  return {cuda::allocate(bytes, stream), [stream](void* memory) { cuda::release(memory, stream); }};
}

[[noreturn]] void too_large(const Shape& shape) {
  throw py::value_error("cuda.Array: arrays must be smaller than 2**63 bytes, got shape " +
                        to_string(shape));
}

}  // namespace

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t n : shape) {
    if (n < 0) {
      throw py::value_error("cuda.Array: sizes must be at least 0, got shape " + to_string(shape));
    }
    if (__builtin_mul_overflow(count, n, &count)) too_large(shape);
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(count, int64_t{8}, &bytes)) too_large(shape);
  return count;
}

CudaArray::CudaArray(DType type, const Shape& shape)
    : data_(nullptr), shape_(shape), type_(type), stream_(cuda::current_stream()) {
  owner_ = device_memory(element_count(shape) * size_of(type), stream_);
  data_ = owner_.get();
}

int64_t CudaArray::size() const { return element_count(shape_); }

py::array CudaArray::numpy() const {
  py::array array(numpy_dtype(type_), shape_);
  void* const to = array.mutable_data();
  const ScopedGilRelease no_gil;
  cuda::copy_to_host(to, data_, nbytes(), stream_);
  return array;
}

void CudaArray::fill(const py::object& source) {
  if (read_only_) throw py::value_error("cuda.Array.fill: the array must be writeable");
  const auto require_like = [&](const std::string& type, const Shape& shape) {
    if (type != name_of(type_) || shape != shape_) {
      throw py::value_error(std::string("cuda.Array.fill: source must be ") + name_of(type_) +
                            " of shape " + to_string(shape_) + ", got " + type + " of shape " +
                            to_string(shape));
    }
  };
  if (py::isinstance<CudaArray>(source)) {
    const CudaArray& other = source.cast<const CudaArray&>();
    require_like(name_of(other.type_), other.shape_);
    const auto address = [](const CudaArray& a) { return reinterpret_cast<uintptr_t>(a.data_); };
    const auto bytes = static_cast<uintptr_t>(nbytes());
    const bool overlap =
        address(*this) < address(other) + bytes && address(other) < address(*this) + bytes;
    if (overlap && data_ != other.data_) {
      // A copy on the GPU may start at either end.
      const CudaArray temporary = other.copy();
      const ScopedGilRelease no_gil;
      cuda::stream_wait(stream_, temporary.stream_);
      cuda::copy_on_device(data_, temporary.data_, nbytes(), stream_);
      cuda::stream_wait(temporary.stream_, stream_);
      return;
    }
    const ScopedGilRelease no_gil;
    cuda::stream_wait(stream_, other.stream_);
    cuda::copy_on_device(data_, other.data_, nbytes(), stream_);
    cuda::stream_wait(other.stream_, stream_);
    return;
  }
  if (!py::isinstance<py::array>(source)) {
    throw py::type_error("cuda.Array.fill: source must be a NumPy array or a cuda.Array, got " +
                         py::str(py::type::of(source).attr("__name__")).cast<std::string>());
  }
  require_unmasked("cuda.Array.fill", "source", source);
  const auto given = py::reinterpret_borrow<py::array>(source);
  require_like(py::str(given.dtype()).cast<std::string>(),
               Shape(given.shape(), given.shape() + given.ndim()));
  const py::array dense = py::array::ensure(given, py::array::c_style);
  const void* const from = dense.data();
  const ScopedGilRelease no_gil;
  cuda::copy_to_device(data_, from, nbytes(), stream_);
}

CudaArray CudaArray::copy() const {
  CudaArray result(type_, shape_);
  const ScopedGilRelease no_gil;
  cuda::stream_wait(result.stream_, stream_);
  cuda::copy_on_device(result.data_, data_, nbytes(), result.stream_);
  cuda::stream_wait(stream_, result.stream_);
  return result;
}

CudaArray CudaArray::part(int64_t offset, const Shape& shape, DType type) const {
  const int64_t bytes = element_count(shape) * size_of(type);
  if (offset < 0 || offset % size_of(type) != 0 || bytes > nbytes() - offset) {
    throw py::value_error(
        "cuda.Array.part: offset must be a multiple of the element size, and the "
        "part must end within " +
        std::to_string(nbytes()) + " bytes, got " + std::to_string(bytes) + " bytes at offset " +
        std::to_string(offset));
  }
  return {owner_, static_cast<char*>(data_) + offset, type, shape, stream_, read_only_};
}

}  // namespace chainrule::bindings
