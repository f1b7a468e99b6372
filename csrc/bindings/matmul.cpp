#include "bindings/call.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

py::object matmul(const py::object& a_, const py::object& b_, const py::object& transpose_a_,
                  const py::object& transpose_b_, const py::object& out) {
  Call call("matmul");
  const bool transpose_a = boolean(call, "transpose_a", transpose_a_);
  const bool transpose_b = boolean(call, "transpose_b", transpose_b_);
  const ArrayView a = call.input("a", a_, 2);
  const ArrayView b = call.input("b", b_, 2);
  const Matmul s{dim(a, transpose_a ? 1 : 0), dim(b, transpose_b ? 0 : 1),
                 dim(a, transpose_a ? 0 : 1), transpose_a, transpose_b};
  const int64_t inner_size_of_b = dim(b, transpose_b ? 1 : 0);
  if (inner_size_of_b != s.k) {
    call.value_error("a and b must have the same inner size, got " + std::to_string(s.k) + " and " +
                     std::to_string(inner_size_of_b));
  }
  const ArrayView c = call.output(out, {s.m, s.n});
  if (c.size() > 0) {
    call.run_with_workspace(
        [=](const auto& ops, int workers) { return ops.matmul_workspace(s, workers); },
        [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
          ops.matmul(data<T>(a), data<T>(b), mutable_data<T>(c), s, workspace);
        });
  }
  return c.object();
}

}  // namespace

void bind_matmul(py::module_& m) {
  m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("transpose_a"),
        py::arg("transpose_b"), py::arg("out"));
}

}  // namespace chainrule::bindings
