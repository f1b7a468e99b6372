// Exchange of arrays on the GPU with other libraries, without a copy: DLPack and the CUDA array
// interface.
#include "bindings/dlpack.h"

#include <pybind11/stl.h>

#include <mutex>
#include <optional>
#include <vector>

#include "bindings/call.h"
#include "bindings/cuda_array.h"
#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

// Decodes the stream number of either protocol.
cuda::Stream stream_of(const char* protocol, int64_t number) {
  if (number == 0) {
    throw py::value_error(std::string(protocol) +
                          ": stream must not be 0, which is ambiguous; 1 is the default stream");
  }
  return reinterpret_cast<cuda::Stream>(number);
}

// Strides in elements. An array without elements gets strides of 1, because its products may
// overflow.
Shape dense_strides(const Shape& shape) {
  Shape strides(shape.size(), 1);
  if (element_count(shape) == 0) return strides;
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

// Checks that memory is contiguous, aligned and of a supported type, and wraps it.
py::object checked_cuda_array(const char* op, std::shared_ptr<void> owner, void* data, DType type,
                              const std::string& type_name, const Shape& shape,
                              const Shape& strides, cuda::Stream stream, bool read_only) {
  if (type == DType::other) {
    throw py::type_error(std::string(op) +
                         ": an array on the GPU must be float32, float64, uint8, uint16, int64 or "
                         "uint64, got " +
                         type_name);
  }
  const int64_t count = element_count(shape);
  const Shape dense = dense_strides(shape);
  bool contiguous = strides.empty() || strides.size() == shape.size();
  for (std::size_t i = shape.size(); contiguous && i-- > 0;) {
    contiguous = strides.empty() || shape[i] == 1 || strides[i] == dense[i];
  }
  if (!data && count > 0) {
    throw py::value_error(std::string(op) + ": an array of shape " + to_string(shape) +
                          " must have an address, got a null pointer");
  }
  if (!contiguous && count > 0) {
    throw py::value_error(std::string(op) +
                          ": an array on the GPU must be C-contiguous, got strides of " +
                          to_string(strides) + " elements for the shape " + to_string(shape));
  }
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(size_of(type)) != 0) {
    throw py::value_error(std::string(op) + ": an array on the GPU must be aligned in memory");
  }
  return py::cast(CudaArray(std::move(owner), data, type, shape, stream, read_only));
}

DType dtype_of(const dlpack::DataType& dtype) {
  if (dtype.lanes != 1) return DType::other;
  const char kind = dtype.code == dlpack::floating_point     ? 'f'
                    : dtype.code == dlpack::signed_integer   ? 'i'
                    : dtype.code == dlpack::unsigned_integer ? 'u'
                                                             : ' ';
  for (const DType type : {DType::f32, DType::f64, DType::u8, DType::u16, DType::i64, DType::u64}) {
    if (numpy_dtype(type).kind() == kind && size_of(type) * 8 == dtype.bits) return type;
  }
  return DType::other;
}

py::object from_tensor(const char* op, std::shared_ptr<void> owner, const dlpack::Tensor& tensor,
                       bool read_only) {
  if (tensor.ndim < 0) {
    throw py::value_error(std::string(op) + ": ndim of a DLPack tensor must be at least 0, got " +
                          std::to_string(tensor.ndim));
  }
  const auto ndim = static_cast<std::size_t>(tensor.ndim);
  const Shape shape(tensor.shape, tensor.shape + ndim);
  Shape strides;
  if (tensor.strides) strides.assign(tensor.strides, tensor.strides + ndim);
  const std::string name = "DLPack's type " + std::to_string(tensor.dtype.code) + " of " +
                           std::to_string(tensor.dtype.bits) + " bits";
  // The producer works on its default stream, so it must not reuse the memory while we read it.
  return checked_cuda_array(
      op, std::move(owner), static_cast<char*>(tensor.data) + tensor.byte_offset,
      dtype_of(tensor.dtype), name, shape, strides, cuda::default_stream(), read_only);
}

py::object from_dlpack(const char* op, const py::object& object) {
  const auto stream = py::int_(reinterpret_cast<uintptr_t>(cuda::current_stream()));
  py::object capsule;
  try {
    capsule = object.attr("__dlpack__")(py::arg("stream") = stream,
                                        py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    capsule =
        object.attr("__dlpack__")(py::arg("stream") = stream);  // a producer of DLPack before 1.0
  }
  // This thread's stream now waits for the producer's work. The array's stream must wait, too.
  cuda::stream_wait(cuda::default_stream(), cuda::current_stream());
  PyObject* const raw = capsule.ptr();
  // A consumer takes ownership by renaming the capsule, and must then call the deleter.
  if (PyCapsule_IsValid(raw, dlpack::versioned_name)) {
    auto* const tensor =
        static_cast<dlpack::VersionedTensor*>(PyCapsule_GetPointer(raw, dlpack::versioned_name));
    PyCapsule_SetName(raw, dlpack::versioned_used_name);
    std::shared_ptr<void> owner(tensor, [tensor](void*) {
      if (tensor->deleter) tensor->deleter(tensor);
    });
    if (tensor->major != 1) {
      throw py::type_error(std::string(op) + ": major version of DLPack must be 1, got " +
                           std::to_string(tensor->major));
    }
    return from_tensor(op, std::move(owner), tensor->tensor, tensor->flags & dlpack::read_only);
  }
  if (PyCapsule_IsValid(raw, dlpack::managed_name)) {
    auto* const tensor =
        static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(raw, dlpack::managed_name));
    PyCapsule_SetName(raw, dlpack::managed_used_name);
    std::shared_ptr<void> owner(tensor, [tensor](void*) {
      if (tensor->deleter) tensor->deleter(tensor);
    });
    return from_tensor(op, std::move(owner), tensor->tensor, false);
  }
  throw py::type_error(std::string(op) + ": __dlpack__ must return a DLPack capsule, got " +
                       bindings::type_name(capsule));
}

// The parsed __cuda_array_interface__.
struct ArrayInterface {
  std::pair<uintptr_t, bool> data;  // the address, and whether it is read-only
  py::dtype dtype;
  Shape shape, strides;  // strides in elements, empty if contiguous
  cuda::Stream stream;
};

Shape integers_of(const py::handle& tuple) {
  Shape found;
  for (const py::handle& n : tuple.cast<py::tuple>()) found.push_back(n.cast<int64_t>());
  return found;
}

ArrayInterface parsed_interface(const py::dict& interface) {
  ArrayInterface found{interface["data"].cast<std::pair<uintptr_t, bool>>(),
                       py::dtype(interface["typestr"].cast<std::string>()),
                       integers_of(interface["shape"]),
                       {},
                       cuda::default_stream()};
  const py::object strides = interface.attr("get")("strides");
  const py::object stream = interface.attr("get")("stream");
  if (!strides.is_none()) found.strides = integers_of(strides);
  for (int64_t& step : found.strides) {
    const int64_t size = found.dtype.itemsize();
    step = size > 0 && step % size == 0 ? step / size : INT64_MIN;
  }
  if (!stream.is_none()) {
    found.stream = stream_of("__cuda_array_interface__", stream.cast<int64_t>());
  }
  return found;
}

py::object from_interface(const char* op, const py::object& object) {
  const py::object interface = object.attr("__cuda_array_interface__");
  const auto require = [&](const char* rule) {
    throw py::type_error(std::string(op) + ": __cuda_array_interface__ must " + rule);
  };
  if (!py::isinstance<py::dict>(interface)) require("be a dict");
  if (!interface.attr("get")("mask").is_none()) require("have no mask");
  std::optional<ArrayInterface> found;
  try {
    found = parsed_interface(interface);
  } catch (const py::cast_error&) {
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_KeyError) && !error.matches(PyExc_TypeError)) throw;
  }
  if (!found) {
    require("have shape (a tuple of integers), typestr and data (an integer and a truth value)");
  }
  // The last reference may be released by another library's thread, without the GIL.
  std::shared_ptr<void> owner(py::object(object).release().ptr(), [](void* handle) {
    if (!Py_IsInitialized()) return;
    const py::gil_scoped_acquire locked;
    Py_DECREF(static_cast<PyObject*>(handle));
  });
  return checked_cuda_array(op, std::move(owner), reinterpret_cast<void*>(found->data.first),
                            bindings::dtype_of(found->dtype),
                            py::str(found->dtype).cast<std::string>(), found->shape, found->strides,
                            found->stream, found->data.second);
}

// Everything that an exported tensor refers to while a consumer holds it.
template <class Managed>
struct ExportedTensor {
  Managed managed;
  CudaArray array;
  Shape shape, strides;
  cuda::Stream consumer;
};

dlpack::Tensor describe(const CudaArray& array, Shape& shape, Shape& strides) {
  const py::dtype dtype = numpy_dtype(array.type());
  const uint8_t code = dtype.kind() == 'f'   ? dlpack::floating_point
                       : dtype.kind() == 'i' ? dlpack::signed_integer
                                             : dlpack::unsigned_integer;
  return {array.data(),
          {dlpack::cuda, 0},
          static_cast<int32_t>(shape.size()),
          {code, static_cast<uint8_t>(8 * size_of(array.type())), 1},
          shape.data(),
          strides.data(),
          0};
}

// Arrays that a consumer released at a moment when waiting for its stream was impossible.
class DeferredReleases {
 public:
  void add(const CudaArray& array) {
    const std::lock_guard<std::mutex> lock(mutex_);
    arrays_.push_back(array);
  }
  void release() {
    std::vector<CudaArray> done;
    const std::lock_guard<std::mutex> lock(mutex_);
    done.swap(arrays_);
  }

 private:
  std::mutex mutex_;
  std::vector<CudaArray> arrays_;
};

// Makes the memory reusable after the consumer's work on it. The consumer's own stream may have
// been destroyed, and using a destroyed stream is undefined. The per-thread default stream was that
// of another thread. So this waits for the whole device, which fails while another library captures
// a graph.
void release_after_consumer(const CudaArray& array, cuda::Stream consumer) {
  // Never destroyed, because a deleter may run at the end of the process.
  static DeferredReleases& deferred = *new DeferredReleases;
  std::optional<ScopedGilRelease> no_gil;
  if (Py_IsInitialized() && PyGILState_Check()) no_gil.emplace();
  try {
    if (consumer == cuda::default_stream()) {
      return cuda::stream_wait(array.stream(), consumer);
    }
    cuda::synchronize_device();
    deferred.release();
  } catch (const std::exception&) {
    // A deleter must not throw. Errors of the GPU surface at the next call.
    deferred.add(array);
  }
}

template <class Managed>
Managed* new_tensor(const CudaArray& array, cuda::Stream consumer) {
  auto* const context =
      new ExportedTensor<Managed>{{}, array, array.shape(), dense_strides(array.shape()), consumer};
  context->managed.tensor = describe(array, context->shape, context->strides);
  context->managed.context = context;
  context->managed.deleter = [](Managed* self) {
    const std::unique_ptr<ExportedTensor<Managed>> exported(
        static_cast<ExportedTensor<Managed>*>(self->context));
    release_after_consumer(exported->array, exported->consumer);
  };
  return &context->managed;
}

// Deletes the tensor of a capsule that no consumer has taken.
template <class Managed>
void delete_unconsumed(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;
  auto* const tensor = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  delete static_cast<ExportedTensor<Managed>*>(tensor->context);
}

// Decodes the stream on which the consumer will work. Null if it needs no synchronization.
cuda::Stream consumer_stream(const py::object& stream) {
  if (stream.is_none()) return cuda::default_stream();
  const auto number = stream.cast<int64_t>();
  if (number == -1) return nullptr;
  return stream_of("__dlpack__", number);
}

py::object from_any_dlpack(const char* op, const py::object& object) {
  if (py::hasattr(object, "__dlpack_device__")) {
    const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
    if (device.first == dlpack::cuda) {
      require_gpu(op);
      if (device.second != 0) {
        throw py::type_error(std::string(op) + ": an array on a GPU must be on GPU 0, got GPU " +
                             std::to_string(device.second));
      }
      return from_dlpack(op, object);
    }
  }
  return py::module_::import("numpy").attr("from_dlpack")(object);
}

// "Tensor of torch.bfloat16"
std::string described(const py::object& object) {
  const std::string name = bindings::type_name(object);
  if (!py::hasattr(object, "dtype")) return name;
  return name + " of " + py::str(object.attr("dtype")).cast<std::string>();
}

}  // namespace

py::object import_array(const char* op, const char* name, const py::object& object) {
  if (py::isinstance<py::array>(object)) {
    require_unmasked(op, name, object);
    return object;
  }
  if (py::isinstance<CudaArray>(object)) return object;
  if (PyType_Check(object.ptr())) return object;  // a class has the methods of its instances
  if (py::hasattr(object, "__dlpack__")) {
    try {
      return from_any_dlpack(op, object);
    } catch (py::error_already_set& error) {
      // The other library's own exception, for example of a dtype that DLPack or NumPy lacks.
      if (!error.matches(PyExc_Exception) || error.matches(PyExc_MemoryError)) throw;
      throw py::type_error(std::string(op) + ": " + name +
                           " must be readable through DLPack, got " + described(object) + ": " +
                           py::str(error.value()).cast<std::string>());
    } catch (const py::cast_error&) {
      throw py::type_error(std::string(op) + ": " + name +
                           " must have a __dlpack_device__ that returns two integers, got " +
                           described(object));
    }
  }
  if (py::hasattr(object, "__cuda_array_interface__")) {
    require_gpu(op);
    return from_interface(op, object);
  }
  return object;
}

py::dict CudaArray::cuda_array_interface() const {
  py::dict result;
  result["shape"] = py::tuple(py::cast(shape_));
  result["typestr"] = numpy_dtype(type_).attr("str");
  result["data"] = py::make_tuple(reinterpret_cast<uintptr_t>(data_), read_only_);
  result["strides"] = py::none();
  result["version"] = 3;
  result["stream"] = reinterpret_cast<uintptr_t>(stream_);
  return result;
}

py::capsule export_dlpack(const CudaArray& array, const py::object& stream,
                          const py::object& max_version) {
  const cuda::Stream consumer = consumer_stream(stream);
  if (consumer) cuda::stream_wait(consumer, array.stream());
  if (!max_version.is_none() && max_version.cast<std::pair<int, int>>().first >= 1) {
    dlpack::VersionedTensor* const tensor = new_tensor<dlpack::VersionedTensor>(array, consumer);
    tensor->major = 1;
    tensor->minor = 0;
    tensor->flags = array.read_only() ? dlpack::read_only : 0;
    return py::reinterpret_steal<py::capsule>(
        PyCapsule_New(tensor, dlpack::versioned_name, [](PyObject* capsule) {
          delete_unconsumed<dlpack::VersionedTensor>(capsule, dlpack::versioned_name);
        }));
  }
  if (array.read_only()) {
    throw py::buffer_error("__dlpack__: max_version must be at least (1, 0) for a read-only array");
  }
  dlpack::ManagedTensor* const tensor = new_tensor<dlpack::ManagedTensor>(array, consumer);
  return py::reinterpret_steal<py::capsule>(
      PyCapsule_New(tensor, dlpack::managed_name, [](PyObject* capsule) {
        delete_unconsumed<dlpack::ManagedTensor>(capsule, dlpack::managed_name);
      }));
}

}  // namespace chainrule::bindings
