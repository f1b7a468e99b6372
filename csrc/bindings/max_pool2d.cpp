#include "bindings/conv_shapes.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

Pair max_pool2d(const py::object& x_, const py::object& window, const py::object& stride,
                const py::object& out) {
  Call call("max_pool2d");
  const Operand x = call.input("x", x_, 4);
  const MaxPool2d s = max_pool2d_shape(call, shape_of(x), window, stride);
  const auto given = call.outputs(out, 2);
  const Operand y = call.output(given[0], output_shape(s));
  const Operand argmax = call.output_positions(given[1], output_shape(s));
  call.run([=]<class T>(const Ops<T>& ops, T) {
    ops.max_pool2d(data<T>(x), mutable_data<T>(y), mutable_data<uint16_t>(argmax), s);
  });
  return py::make_tuple(y.object(), argmax.object());
}

py::object max_pool2d_backward(const py::object& dy_, const py::object& argmax_,
                               const py::object& input_shape, const py::object& window,
                               const py::object& stride, const py::object& out) {
  Call call("max_pool2d_backward");
  const Operand dy = call.input("dy", dy_, 4);
  const Operand argmax = call.positions("argmax", argmax_);
  const Shape x = image_shape(call, "input_shape", input_shape);
  const MaxPool2d s = max_pool2d_shape(call, x, window, stride);
  require_shape(call, "dy", dy, output_shape(s));
  require_shape(call, "argmax", argmax, output_shape(s));
  const Operand dx = call.output(out, x);
  call.run([=]<class T>(const Ops<T>& ops, T) {
    require_in_window("max_pool2d_backward", argmax, s);
    ops.max_pool2d_backward(data<T>(dy), data<uint16_t>(argmax), mutable_data<T>(dx), s);
  });
  return dx.object();
}

// The rule that max_pool2d applies to its arguments, for code that has no arrays yet.
ImageShape max_pool2d_output_shape(const py::object& input_shape, const py::object& window,
                                   const py::object& stride) {
  const Call call("max_pool2d");
  const Shape x = image_shape(call, "input_shape", input_shape);
  return python_shape(output_shape(max_pool2d_shape(call, x, window, stride)));
}

}  // namespace

void bind_max_pool2d(py::module_& m) {
  m.def("max_pool2d_output_shape", &max_pool2d_output_shape, py::arg("input_shape"),
        py::arg("window"), py::arg("stride"));
  m.def("max_pool2d", &max_pool2d, py::arg("x"), py::arg("window"), py::arg("stride"),
        py::arg("out"));
  m.def("max_pool2d_backward", &max_pool2d_backward, py::arg("dy"), py::arg("argmax"),
        py::arg("input_shape"), py::arg("window"), py::arg("stride"), py::arg("out"));
}

}  // namespace chainrule::bindings
