#include "bindings/elementwise.h"
#include "bindings/module.h"

namespace chainrule::bindings {
namespace {

// Rows run along the last axis.
Rows rows_of(const Call& call, const char* name, const ArrayView& x) {
  if (x.ndim() == 0) call.value_error(std::string(name) + " must have at least 1 dimension, got 0");
  const int64_t columns = dim(x, x.ndim() - 1);
  return {columns > 0 ? x.size() / columns : 0, columns};
}

template <class F>
py::object apply_to_rows(Call& call, const py::object& x_, const py::object& out, F kernel) {
  const ArrayView x = call.input("x", x_);
  const Rows s = rows_of(call, "x", x);
  const ArrayView y = call.output(out, shape_of(x), {x});
  call.run([=]<class T>(const Ops<T>& ops, T) { kernel(ops, data<T>(x), mutable_data<T>(y), s); });
  return y.object();
}

}  // namespace

void bind_softmax(py::module_& m) {
  m.def(
      "softmax",
      [](const py::object& x, const py::object& out) {
        Call call("softmax");
        return apply_to_rows(call, x, out, [](const auto& ops, auto... a) { ops.softmax(a...); });
      },
      py::arg("x"), py::arg("out"));
  m.def(
      "log_softmax",
      [](const py::object& x, const py::object& out) {
        Call call("log_softmax");
        return apply_to_rows(call, x, out,
                             [](const auto& ops, auto... a) { ops.log_softmax(a...); });
      },
      py::arg("x"), py::arg("out"));
  m.def(
      "softmax_backward",
      [](const py::object& dy_, const py::object& y_, const py::object& out) {
        Call call("softmax_backward");
        const ArrayView dy = call.input("dy", dy_);
        const ArrayView y = call.input("y", y_);
        require_same_shape(call, "dy", dy, "y", y);
        const Rows s = rows_of(call, "dy", dy);
        const ArrayView dx = call.output(out, shape_of(dy), {dy, y});
        call.run([=]<class T>(const Ops<T>& ops, T) {
          ops.softmax_backward(data<T>(dy), data<T>(y), mutable_data<T>(dx), s);
        });
        return dx.object();
      },
      py::arg("dy"), py::arg("y"), py::arg("out"));
}

}  // namespace chainrule::bindings
