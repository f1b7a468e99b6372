// Arrays on the GPU from and to other libraries, without a copy: DLPack and the CUDA array
// interface.
#include "bindings/dlpack.h"

#include <pybind11/stl.h>

#include <mutex>
#include <optional>
#include <vector>

#include "bindings/cuda_array.h"
#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

// By its number in both protocols.
cuda::Stream stream_of(const char* protocol, int64_t number) {
  if (number == 0) {
    throw py::value_error(std::string(protocol) +
                          ": stream 0 is ambiguous; 1 is the default stream");
  }
  return reinterpret_cast<cuda::Stream>(number);
}

// In elements. Where there are none any will do: the products may be beyond 64 bits.
Shape dense_strides(const Shape& shape) {
  Shape strides(shape.size(), 1);
  if (elements(shape) == 0) return strides;
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

// A dense, row-major array of a type that kernels know, or the error that says what it is not.
py::object made(const char* op, std::shared_ptr<void> owner, void* data, Type type,
                const std::string& type_name, const Shape& shape, const Shape& strides,
                cuda::Stream stream, bool read_only) {
  if (type == Type::other) {
    throw py::type_error(std::string(op) +
                         ": an array on the GPU must be float32, float64, uint8, uint16, int64 or "
                         "uint64, got " +
                         type_name);
  }
  const int64_t count = elements(shape);
  const Shape dense = dense_strides(shape);
  bool contiguous = strides.empty() || strides.size() == shape.size();
  for (std::size_t i = shape.size(); contiguous && i-- > 0;) {
    contiguous = strides.empty() || shape[i] == 1 || strides[i] == dense[i];
  }
  if (!data && count > 0) {
    throw py::value_error(std::string(op) + ": an array of shape " + to_string(shape) +
                          " must have an address");
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

Type type_of(const dlpack::Element& element) {
  if (element.lanes != 1) return Type::other;
  const char kind = element.code == dlpack::floating           ? 'f'
                    : element.code == dlpack::signed_integer   ? 'i'
                    : element.code == dlpack::unsigned_integer ? 'u'
                                                               : ' ';
  for (const Type type : {Type::f32, Type::f64, Type::u8, Type::u16, Type::i64, Type::u64}) {
    if (dtype_of(type).kind() == kind && size_of(type) * 8 == element.bits) return type;
  }
  return Type::other;
}

py::object from_tensor(const char* op, std::shared_ptr<void> owner, const dlpack::Tensor& tensor,
                       bool read_only) {
  if (tensor.dimensions < 0) {
    throw py::value_error(std::string(op) + ": an array must have dimensions, got " +
                          std::to_string(tensor.dimensions));
  }
  const auto dimensions = static_cast<std::size_t>(tensor.dimensions);
  const Shape shape(tensor.shape, tensor.shape + dimensions);
  Shape strides;
  if (tensor.strides) strides.assign(tensor.strides, tensor.strides + dimensions);
  const std::string name = "DLPack's type " + std::to_string(tensor.element.code) + " of " +
                           std::to_string(tensor.element.bits) + " bits";
  // Its library works on its default stream: it should not reuse the memory while we read it.
  return made(op, std::move(owner), static_cast<char*>(tensor.data) + tensor.byte_offset,
              type_of(tensor.element), name, shape, strides, cuda::default_stream(), read_only);
}

py::object from_dlpack(const char* op, const py::object& object) {
  const auto stream = py::int_(reinterpret_cast<uintptr_t>(cuda::current_stream()));
  py::object capsule;
  try {
    capsule = object.attr("__dlpack__")(py::arg("stream") = stream,
                                        py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    capsule = object.attr("__dlpack__")(py::arg("stream") = stream);  // from before version 1
  }
  // What this thread's stream waits for now, the producer's work, the array's is to wait for too.
  cuda::stream_wait(cuda::default_stream(), cuda::current_stream());
  PyObject* const raw = capsule.ptr();
  // Taking a capsule is renaming it; whoever took it calls the deleter.
  if (PyCapsule_IsValid(raw, dlpack::versioned_name)) {
    auto* const held =
        static_cast<dlpack::Versioned*>(PyCapsule_GetPointer(raw, dlpack::versioned_name));
    PyCapsule_SetName(raw, dlpack::versioned_taken);
    std::shared_ptr<void> owner(held, [held](void*) {
      if (held->deleter) held->deleter(held);
    });
    if (held->major != 1) {
      throw py::type_error(std::string(op) + ": DLPack of version " + std::to_string(held->major) +
                           " is not known here");
    }
    return from_tensor(op, std::move(owner), held->tensor, held->flags & dlpack::read_only);
  }
  if (PyCapsule_IsValid(raw, dlpack::managed_name)) {
    auto* const held =
        static_cast<dlpack::Managed*>(PyCapsule_GetPointer(raw, dlpack::managed_name));
    PyCapsule_SetName(raw, dlpack::managed_taken);
    std::shared_ptr<void> owner(held, [held](void*) {
      if (held->deleter) held->deleter(held);
    });
    return from_tensor(op, std::move(owner), held->tensor, false);
  }
  throw py::type_error(std::string(op) + ": __dlpack__ returned no DLPack capsule");
}

// What the interface says, in our words.
struct Described {
  std::pair<uintptr_t, bool> data;  // the address, and whether it is read-only
  py::dtype dtype;
  Shape shape, strides;  // strides in elements; none where it is dense
  cuda::Stream stream;
};

Shape numbers(const py::handle& tuple) {
  Shape found;
  for (const py::handle& n : tuple.cast<py::tuple>()) found.push_back(n.cast<int64_t>());
  return found;
}

Described described(const py::dict& interface) {
  Described found{interface["data"].cast<std::pair<uintptr_t, bool>>(),
                  py::dtype(interface["typestr"].cast<std::string>()),
                  numbers(interface["shape"]),
                  {},
                  cuda::default_stream()};
  const py::object steps = interface.attr("get")("strides"), at = interface.attr("get")("stream");
  if (!steps.is_none()) found.strides = numbers(steps);
  for (int64_t& step : found.strides) {
    const int64_t size = found.dtype.itemsize();
    step = size > 0 && step % size == 0 ? step / size : INT64_MIN;
  }
  if (!at.is_none()) found.stream = stream_of("__cuda_array_interface__", at.cast<int64_t>());
  return found;
}

py::object from_interface(const char* op, const py::object& object) {
  const py::object interface = object.attr("__cuda_array_interface__");
  const auto refuse = [&](const char* what) {
    throw py::type_error(std::string(op) + ": __cuda_array_interface__ must " + what);
  };
  if (!py::isinstance<py::dict>(interface)) refuse("be a dict");
  if (!interface.attr("get")("mask").is_none()) refuse("have no mask");
  std::optional<Described> found;
  try {
    found = described(interface);
  } catch (const py::cast_error&) {
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_KeyError) && !error.matches(PyExc_TypeError)) throw;
  }
  if (!found) {
    refuse("hold shape (a tuple of integers), typestr and data (an integer and a truth value)");
  }
  // The last to let go may be another library's thread, without the interpreter's lock.
  std::shared_ptr<void> owner(py::object(object).release().ptr(), [](void* held) {
    if (!Py_IsInitialized()) return;
    const py::gil_scoped_acquire locked;
    Py_DECREF(static_cast<PyObject*>(held));
  });
  return made(op, std::move(owner), reinterpret_cast<void*>(found->data.first),
              bindings::type_of(found->dtype), py::str(found->dtype).cast<std::string>(),
              found->shape, found->strides, found->stream, found->data.second);
}

// What an exported tensor needs for as long as somebody holds it.
template <class Exchanged>
struct Export {
  Exchanged exchanged;
  CudaArray array;
  Shape shape, strides;
  cuda::Stream consumer;
};

dlpack::Tensor tensor_of(const CudaArray& array, Shape& shape, Shape& strides) {
  const py::dtype dtype = dtype_of(array.type());
  const uint8_t code = dtype.kind() == 'f'   ? dlpack::floating
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

// Arrays that a consumer gave back at a moment when it could not be waited for.
class Parked {
 public:
  void keep(const CudaArray& array) {
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

// The memory may be used again here once the consumer is done with it. Of a stream of its own
// nobody knows whether it is still there, and one that is gone must not be named; the one "of this
// thread" was another's. So all are waited for, which is refused while another library captures.
void take_back(const CudaArray& array, cuda::Stream consumer) {
  static Parked& parked = *new Parked;  // never destroyed: a deleter may run at the process's end
  std::optional<Unlocked> unlocked;
  if (Py_IsInitialized() && PyGILState_Check()) unlocked.emplace();
  try {
    if (consumer == cuda::default_stream()) return cuda::stream_wait(array.stream(), consumer);
    cuda::synchronize_device();
    parked.release();
  } catch (const std::exception&) {
    // A deleter must not throw; the GPU's errors show at the next call.
    parked.keep(array);
  }
}

template <class Exchanged>
Exchanged* exchanged(const CudaArray& array, cuda::Stream consumer) {
  auto* const kept =
      new Export<Exchanged>{{}, array, array.shape(), dense_strides(array.shape()), consumer};
  kept->exchanged.tensor = tensor_of(array, kept->shape, kept->strides);
  kept->exchanged.context = kept;
  kept->exchanged.deleter = [](Exchanged* self) {
    const std::unique_ptr<Export<Exchanged>> held(static_cast<Export<Exchanged>*>(self->context));
    take_back(held->array, held->consumer);
  };
  return &kept->exchanged;
}

// For a capsule that nobody took.
template <class Exchanged>
void drop(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;
  auto* const held = static_cast<Exchanged*>(PyCapsule_GetPointer(capsule, name));
  delete static_cast<Export<Exchanged>*>(held->context);
}

// The stream on which the consumer will work, in the protocol's numbers; null: it needs no order.
cuda::Stream consumer(const py::object& stream) {
  if (stream.is_none()) return cuda::default_stream();
  const auto number = stream.cast<int64_t>();
  if (number == -1) return nullptr;
  return stream_of("__dlpack__", number);
}

}  // namespace

py::object adopted(const char* op, const py::object& object) {
  if (py::isinstance<py::array>(object) || py::isinstance<CudaArray>(object)) return object;
  if (py::hasattr(object, "__dlpack__")) {
    if (py::hasattr(object, "__dlpack_device__")) {
      const auto device = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
      if (device.first == dlpack::cuda) {
        require_gpu(op);
        if (device.second != 0) {
          throw py::type_error(std::string(op) + ": an array must lie on GPU 0, got one on GPU " +
                               std::to_string(device.second));
        }
        return from_dlpack(op, object);
      }
    }
    return py::module_::import("numpy").attr("from_dlpack")(object);
  }
  if (py::hasattr(object, "__cuda_array_interface__")) {
    require_gpu(op);
    return from_interface(op, object);
  }
  return object;
}

py::dict CudaArray::interface() const {
  py::dict result;
  result["shape"] = py::tuple(py::cast(shape_));
  result["typestr"] = dtype_of(type_).attr("str");
  result["data"] = py::make_tuple(reinterpret_cast<uintptr_t>(data_), read_only_);
  result["strides"] = py::none();
  result["version"] = 3;
  result["stream"] = reinterpret_cast<uintptr_t>(stream_);
  return result;
}

py::capsule exported(const CudaArray& array, const py::object& stream,
                     const py::object& max_version) {
  const cuda::Stream later = consumer(stream);
  if (later) cuda::stream_wait(later, array.stream());
  if (!max_version.is_none() && max_version.cast<std::pair<int, int>>().first >= 1) {
    dlpack::Versioned* const held = exchanged<dlpack::Versioned>(array, later);
    held->major = 1;
    held->minor = 0;
    held->flags = array.read_only() ? dlpack::read_only : 0;
    return py::reinterpret_steal<py::capsule>(PyCapsule_New(
        held, dlpack::versioned_name,
        [](PyObject* capsule) { drop<dlpack::Versioned>(capsule, dlpack::versioned_name); }));
  }
  if (array.read_only()) {
    throw py::buffer_error("__dlpack__: a read-only array needs DLPack 1.0 (max_version)");
  }
  dlpack::Managed* const held = exchanged<dlpack::Managed>(array, later);
  return py::reinterpret_steal<py::capsule>(PyCapsule_New(
      held, dlpack::managed_name,
      [](PyObject* capsule) { drop<dlpack::Managed>(capsule, dlpack::managed_name); }));
}

}  // namespace chainrule::bindings
