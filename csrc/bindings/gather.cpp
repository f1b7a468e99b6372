#include "bindings/call.h"
#include "bindings/module.h"

namespace chainrule::bindings {
namespace {

py::object gather(const py::object& source_, const py::object& indices_, const py::object& out_) {
  Call call("gather");
  const ArrayView source = call.gather_source(source_);
  if (source.ndim() == 0) call.value_error("source must have at least 1 dimension, got 0");
  Shape shape = shape_of(source);
  const int64_t count = shape[0];
  const ArrayView indices = call.integers("indices", indices_, count);
  shape[0] = dim(indices, 0);
  const bool source_is_uint8 = source.type() == DType::u8;
  if (source_is_uint8) call.dtype_from(out_);
  const ArrayView out = call.output(out_, shape);
  const int64_t rows = shape[0];
  // Also if the source is empty: if the host cannot check the indices, the kernel writes 0.
  const Gather s{rows, rows > 0 ? out.size() / rows : 0, count};
  call.run([=]<class T>(const Ops<T>& ops, T) {
    require_in_range("gather: indices", indices, rows, count);
    ops.gather(source.data(), source_is_uint8, data<int64_t>(indices), mutable_data<T>(out), s);
  });
  return out.object();
}

}  // namespace

void bind_gather(py::module_& m) {
  m.def("gather", &gather, py::arg("source"), py::arg("indices"), py::arg("out"));
}

}  // namespace chainrule::bindings
