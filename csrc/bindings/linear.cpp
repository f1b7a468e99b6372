#include "bindings/call.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

Linear shape_from(const Call& call, const ArrayView& x, const ArrayView& weight) {
  if (dim(weight, 1) != dim(x, 1)) {
    call.value_error("x and weight must have the same number of inputs, got " +
                     std::to_string(dim(x, 1)) + " and " + std::to_string(dim(weight, 1)));
  }
  return {dim(x, 0), dim(x, 1), dim(weight, 0)};
}

py::object linear(const py::object& x_, const py::object& weight_, const py::object& bias_,
                  const py::object& activation, const py::object& out) {
  Call call("linear");
  const ArrayView x = call.input("x", x_, 2);
  const ArrayView weight = call.input("weight", weight_, 2);
  const Linear s = shape_from(call, x, weight);
  const ArrayView bias = call.bias(bias_, s.out, "outputs");
  const bool relu = is_relu(call, activation);
  const ArrayView y = call.output(out, {s.batch, s.out});
  if (y.size() > 0) {
    call.run_with_workspace(
        [=](const auto& ops, int workers) { return ops.linear_workspace(s, workers); },
        [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
          ops.linear(data<T>(x), data<T>(weight), data<T>(bias), mutable_data<T>(y), relu, s,
                     workspace);
        });
  }
  return y.object();
}

using Gradients = py::typing::Tuple<py::object, py::object, py::object>;

Gradients linear_backward(const py::object& dy_, const py::object& x_, const py::object& weight_,
                          const py::object& need_dx_, const py::object& out) {
  Call call("linear_backward");
  const bool need_dx = boolean(call, "need_dx", need_dx_);
  const ArrayView dy = call.input("dy", dy_, 2);
  const ArrayView x = call.input("x", x_, 2);
  const ArrayView weight = call.input("weight", weight_, 2);
  const Linear s = shape_from(call, x, weight);
  if (shape_of(dy) != Shape{s.batch, s.out}) {
    call.value_error("dy must have shape " + to_string({s.batch, s.out}) + ", got " +
                     to_string(shape_of(dy)));
  }
  const auto given = call.unpack_out(out, 3, !need_dx);
  if (!need_dx && !given[0].is_none()) {
    call.value_error("out must be (None, dweight, dbias) if need_dx is False, got an array as dx");
  }
  ArrayView dx;
  if (need_dx) dx = call.output(given[0], {s.batch, s.in});
  const ArrayView dweight = call.output(given[1], {s.out, s.in});
  const ArrayView dbias = call.output(given[2], {s.out});
  call.run_with_workspace(
      [=](const auto& ops, int workers) { return ops.linear_backward_workspace(s, workers); },
      [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
        ops.linear_backward(data<T>(dy), data<T>(x), data<T>(weight), mutable_data<T>(dx),
                            mutable_data<T>(dweight), mutable_data<T>(dbias), s, workspace);
      });
  return py::make_tuple(need_dx ? dx.object() : py::none(), dweight.object(), dbias.object());
}

}  // namespace

void bind_linear(py::module_& m) {
  m.def("linear", &linear, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("activation"),
        py::arg("out"));
  m.def("linear_backward", &linear_backward, py::arg("dy"), py::arg("x"), py::arg("weight"),
        py::arg("need_dx"), py::arg("out"));
}

}  // namespace chainrule::bindings
