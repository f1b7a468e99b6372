// Functions of chainrule.cuda.
#include <pybind11/stl.h>

#include "bindings/call.h"
#include "bindings/cuda_array.h"
#include "bindings/module.h"
#include "bindings/scalars.h"
#include "cuda/gemm/precision.h"
#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

Shape shape_from(const py::object& given) {
  const Call call("cuda.Array");
  Shape shape;
  if (py::isinstance<py::tuple>(given) || py::isinstance<py::list>(given)) {
    for (const py::handle& n : py::reinterpret_borrow<py::sequence>(given)) {
      shape.push_back(integer(call, "shape", n, 0, INT64_MAX));
    }
  } else {
    shape.push_back(integer(call, "shape", given, 0, INT64_MAX));
  }
  return shape;
}

DType dtype_from(const py::object& given) {
  const py::dtype dtype = py::dtype::from_args(given);
  const DType type = dtype_of(dtype);
  if (type == DType::other) {
    throw py::type_error(
        "cuda.Array: dtype must be float32, float64, uint8, uint16, int64 or uint64, got " +
        py::str(dtype).cast<std::string>());
  }
  return type;
}

CudaArray new_empty(const py::object& shape, const py::object& dtype) {
  require_gpu("cuda.empty");
  return {dtype_from(dtype), shape_from(shape)};
}

CudaArray new_zeros(const py::object& shape, const py::object& dtype) {
  require_gpu("cuda.zeros");
  CudaArray array(dtype_from(dtype), shape_from(shape));
  cuda::fill_zero(array.data(), array.nbytes(), array.stream());
  return array;
}

// A NumPy array is copied to the GPU. An array on the GPU is used without a copy.
py::object to_gpu(const py::object& object) {
  require_gpu("cuda.array");
  const py::object found = import_array("cuda.array", "source", object);
  if (py::isinstance<CudaArray>(found)) return found;
  if (!py::isinstance<py::array>(found)) {
    throw py::type_error("cuda.array: source must be an array, got " + type_name(object));
  }
  const auto given = py::reinterpret_borrow<py::array>(found);
  CudaArray result(dtype_from(given.dtype()), Shape(given.shape(), given.shape() + given.ndim()));
  result.fill(given);
  return py::cast(std::move(result));
}

std::string repr(const CudaArray& array) {
  return "cuda.Array(shape=" + to_string(array.shape()) + ", dtype=" + name_of(array.type()) + ")";
}

int64_t length(const CudaArray& array) {
  if (array.shape().empty())
    throw py::type_error("cuda.Array: len() must be of an array with dimensions, got shape ()");
  return array.shape()[0];
}

void bind_array(py::module_& m) {
  py::class_<CudaArray>(m, "CudaArray")
      .def_property_readonly("shape",
                             [](const CudaArray& a) -> py::typing::Tuple<py::int_, py::ellipsis> {
                               return py::tuple(py::cast(a.shape()));
                             })
      .def_property_readonly("dtype",
                             [](const CudaArray& a) -> py::object { return numpy_dtype(a.type()); })
      .def_property_readonly("ndim", [](const CudaArray& a) { return a.shape().size(); })
      .def_property_readonly("size", &CudaArray::size)
      .def_property_readonly("nbytes", &CudaArray::nbytes)
      .def_property_readonly(
          "stream", [](const CudaArray& a) { return reinterpret_cast<uintptr_t>(a.stream()); })
      .def("__len__", &length)
      .def("__repr__", &repr)
      .def("numpy", [](const CudaArray& a) -> py::object { return a.numpy(); })
      .def("copy", &CudaArray::copy)
      .def("fill", &CudaArray::fill, py::arg("source"))
      .def(
          "part",
          [](const CudaArray& a, int64_t offset, const py::object& shape, const py::object& dtype) {
            return a.part(offset, shape_from(shape), dtype_from(dtype));
          },
          py::arg("offset"), py::arg("shape"), py::arg("dtype"))
      .def(
          "__dlpack__",
          [](const CudaArray& a, const py::object& stream, const py::object& max_version,
             const py::object& dl_device, const py::object& copy) -> py::object {
            if (!dl_device.is_none() && !dl_device.equal(py::make_tuple(2, 0))) {
              throw py::buffer_error(
                  "__dlpack__: dl_device must be (2, 0), the array's GPU; use numpy() for a copy "
                  "on the CPU");
            }
            return export_dlpack(copy.is_none() || !copy.cast<bool>() ? a : a.copy(), stream,
                                 max_version);
          },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
          py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def(
          "__array__",
          [](const CudaArray&, const py::object&, const py::object&) -> py::object {
            throw py::type_error(
                "cuda.Array: an array on a GPU must be copied to become a NumPy array; use its "
                "numpy()");
          },
          py::arg("dtype") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__", [](const CudaArray&) { return py::make_tuple(2, 0); })
      .def_property_readonly("__cuda_array_interface__",
                             [](const CudaArray& a) -> py::typing::Dict<py::str, py::object> {
                               return a.cuda_array_interface();
                             });
}

}  // namespace

void bind_cuda(py::module_& m) {
  bind_array(m);
  m.def("cuda_why_off", &cuda::why_off);
  m.def("cuda_description", [] {
    require_gpu("cuda.description");
    return cuda::description();
  });
  m.def("cuda_empty", &new_empty, py::arg("shape"), py::arg("dtype"));
  m.def("cuda_zeros", &new_zeros, py::arg("shape"), py::arg("dtype"));
  m.def("cuda_array", &to_gpu, py::arg("object"));
  m.def("cuda_synchronize", [] {
    require_gpu("cuda.synchronize");
    const ScopedGilRelease no_gil;
    cuda::synchronize(cuda::current_stream());
  });
  m.def("cuda_memory", [] {
    require_gpu("cuda.memory");
    const cuda::MemoryInfo memory = cuda::memory();
    return py::make_tuple(memory.free, memory.total);
  });
  m.def("matmul_precision", [] {
    return std::string(cuda::matmul_precision == cuda::Precision::tf32 ? "tf32" : "highest");
  });
  m.def(
      "set_matmul_precision",
      [](const py::object& name_) {
        const std::string name = text(Call("set_matmul_precision"), "precision", name_);
        if (name != "highest" && name != "tf32") {
          throw py::value_error(
              "set_matmul_precision: precision must be \"highest\" or \"tf32\", got \"" + name +
              '"');
        }
        cuda::matmul_precision = name == "tf32" ? cuda::Precision::tf32 : cuda::Precision::highest;
      },
      py::arg("precision"));
}

}  // namespace chainrule::bindings
