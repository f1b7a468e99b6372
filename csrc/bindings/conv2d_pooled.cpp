#include "bindings/conv_shapes.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

Pair conv2d_pooled(const py::object& x_, const py::object& weight_, const py::object& bias_,
                   const py::object& window, const py::object& stride, const py::object& padding,
                   const py::object& activation, const py::object& out) {
  Call call("conv2d_pooled");
  const Operand x = call.input("x", x_, 4);
  const Operand weight = call.input("weight", weight_, 4);
  const Conv2d s = checked_conv2d_shape(call, shape_of(x), filters_of(weight), stride, padding);
  const MaxPool2d p = max_pool2d_shape(call, output_shape(s), window, py::none());
  const Operand bias = call.bias(bias_, s.out, "filters");
  const bool relu = is_relu(call, activation);
  const auto given = call.outputs(out, 2);
  const Operand y = call.output(given[0], output_shape(p));
  const Operand argmax = call.output_positions(given[1], output_shape(p));
  if (y.size() > 0) {
    call.run_with_workspace(
        [=](const auto& ops, int workers) { return ops.conv2d_pooled_workspace(s, p, workers); },
        [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
          ops.conv2d_pooled(data<T>(x), data<T>(weight), data<T>(bias), mutable_data<T>(y),
                            mutable_data<uint16_t>(argmax), relu, s, p, workspace);
        });
  }
  return py::make_tuple(y.object(), argmax.object());
}

py::object conv2d_pooled_backward_input(const py::object& dy_, const py::object& argmax_,
                                        const py::object& weight_, const py::object& input_shape,
                                        const py::object& window, const py::object& stride,
                                        const py::object& padding, const py::object& out) {
  Call call("conv2d_pooled_backward_input");
  const Operand dy = call.input("dy", dy_, 4);
  const Operand argmax = call.positions("argmax", argmax_);
  const Operand weight = call.input("weight", weight_, 4);
  const Shape x = image_shape(call, "input_shape", input_shape);
  const Conv2d s = checked_conv2d_shape(call, x, filters_of(weight), stride, padding);
  const MaxPool2d p = max_pool2d_shape(call, output_shape(s), window, py::none());
  require_shape(call, "dy", dy, output_shape(p));
  require_shape(call, "argmax", argmax, output_shape(p));
  const Operand dx = call.output(out, x);
  const bool any = dx.size() > 0;
  call.run_with_workspace(
      [=](const auto& ops, int workers) {
        return any ? ops.conv2d_pooled_backward_input_workspace(s, p, workers) : 0;
      },
      [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
        require_in_window("conv2d_pooled_backward_input", argmax, p);
        if (!any) return;
        ops.conv2d_pooled_backward_input(data<T>(dy), data<uint16_t>(argmax), data<T>(weight),
                                         mutable_data<T>(dx), s, p, workspace);
      });
  return dx.object();
}

Pair conv2d_pooled_backward_weight(const py::object& dy_, const py::object& argmax_,
                                   const py::object& x_, const py::object& kernel_size,
                                   const py::object& window, const py::object& stride,
                                   const py::object& padding, const py::object& out) {
  Call call("conv2d_pooled_backward_weight");
  const Operand dy = call.input("dy", dy_, 4);
  const Operand argmax = call.positions("argmax", argmax_);
  const Operand x = call.input("x", x_, 4);
  const auto [rows, columns] = pair(call, "kernel_size", kernel_size, 1, longest_axis);
  const Filters filters{dim(dy, 3), rows, columns, dim(x, 3)};
  const Conv2d s = checked_conv2d_shape(call, shape_of(x), filters, stride, padding);
  const MaxPool2d p = max_pool2d_shape(call, output_shape(s), window, py::none());
  require_shape(call, "dy", dy, output_shape(p));
  require_shape(call, "argmax", argmax, output_shape(p));
  const auto given = call.outputs(out, 2);
  const Operand dweight = call.output(given[0], {s.out, rows, columns, s.in});
  const Operand dbias = call.output(given[1], {s.out});
  call.run_with_workspace(
      [=](const auto& ops, int workers) {
        return ops.conv2d_pooled_backward_weight_workspace(s, p, workers);
      },
      [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
        require_in_window("conv2d_pooled_backward_weight", argmax, p);
        ops.conv2d_pooled_backward_weight(data<T>(dy), data<uint16_t>(argmax), data<T>(x),
                                          mutable_data<T>(dweight), mutable_data<T>(dbias), s, p,
                                          workspace);
      });
  return py::make_tuple(dweight.object(), dbias.object());
}

}  // namespace

void bind_conv2d_pooled(py::module_& m) {
  m.def("conv2d_pooled", &conv2d_pooled, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("window"), py::arg("stride"), py::arg("padding"), py::arg("activation"),
        py::arg("out"));
  m.def("conv2d_pooled_backward_input", &conv2d_pooled_backward_input, py::arg("dy"),
        py::arg("argmax"), py::arg("weight"), py::arg("input_shape"), py::arg("window"),
        py::arg("stride"), py::arg("padding"), py::arg("out"));
  m.def("conv2d_pooled_backward_weight", &conv2d_pooled_backward_weight, py::arg("dy"),
        py::arg("argmax"), py::arg("x"), py::arg("kernel_size"), py::arg("window"),
        py::arg("stride"), py::arg("padding"), py::arg("out"));
}

}  // namespace chainrule::bindings
