#include "bindings/conv_shapes.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

py::object conv2d(const py::object& x_, const py::object& weight_, const py::object& bias_,
                  const py::object& stride, const py::object& padding, const py::object& activation,
                  const py::object& out) {
  Call call("conv2d");
  const Operand x = call.input("x", x_, 4);
  const Operand weight = call.input("weight", weight_, 4);
  const Conv2d s = checked_conv2d_shape(call, shape_of(x), filters_of(weight), stride, padding);
  const Operand bias = call.bias(bias_, s.out, "filters");
  const bool relu = is_relu(call, activation);
  const Operand y = call.output(out, output_shape(s));
  if (y.size() > 0) {
    call.run_with_workspace(
        [=](const auto& ops, int workers) { return ops.conv2d_workspace(s, workers); },
        [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
          ops.conv2d(data<T>(x), data<T>(weight), data<T>(bias), mutable_data<T>(y), relu, s,
                     workspace);
        });
  }
  return y.object();
}

py::object conv2d_backward_input(const py::object& dy_, const py::object& weight_,
                                 const py::object& input_shape, const py::object& stride,
                                 const py::object& padding, const py::object& out) {
  Call call("conv2d_backward_input");
  const Operand dy = call.input("dy", dy_, 4);
  const Operand weight = call.input("weight", weight_, 4);
  const Shape x = image_shape(call, "input_shape", input_shape);
  const Conv2d s = checked_conv2d_shape(call, x, filters_of(weight), stride, padding);
  require_shape(call, "dy", dy, output_shape(s));
  const Operand dx = call.output(out, x);
  if (dx.size() > 0) {
    call.run_with_workspace(
        [=](const auto& ops, int workers) {
          return ops.conv2d_backward_input_workspace(s, workers);
        },
        [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
          ops.conv2d_backward_input(data<T>(dy), data<T>(weight), mutable_data<T>(dx), s,
                                    workspace);
        });
  }
  return dx.object();
}

Pair conv2d_backward_weight(const py::object& dy_, const py::object& x_,
                            const py::object& kernel_size, const py::object& stride,
                            const py::object& padding, const py::object& out) {
  Call call("conv2d_backward_weight");
  const Operand dy = call.input("dy", dy_, 4);
  const Operand x = call.input("x", x_, 4);
  const auto [rows, columns] = pair(call, "kernel_size", kernel_size, 1, longest_axis);
  const Filters filters{dim(dy, 3), rows, columns, dim(x, 3)};
  const Conv2d s = checked_conv2d_shape(call, shape_of(x), filters, stride, padding);
  require_shape(call, "dy", dy, output_shape(s));
  const auto given = call.outputs(out, 2);
  const Operand dweight = call.output(given[0], {s.out, rows, columns, s.in});
  const Operand dbias = call.output(given[1], {s.out});
  call.run_with_workspace(
      [=](const auto& ops, int workers) {
        return ops.conv2d_backward_weight_workspace(s, workers);
      },
      [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
        ops.conv2d_backward_weight(data<T>(dy), data<T>(x), mutable_data<T>(dweight),
                                   mutable_data<T>(dbias), s, workspace);
      });
  return py::make_tuple(dweight.object(), dbias.object());
}

// The rule that conv2d applies to its arguments, for code that has no arrays yet.
ImageShape conv2d_output_shape(const py::object& input_shape, const py::object& out_channels,
                               const py::object& kernel_size, const py::object& stride,
                               const py::object& padding) {
  const Call call("conv2d");
  const Shape x = image_shape(call, "input_shape", input_shape);
  const int64_t out = integer(call, "out_channels", out_channels, 0, longest_axis);
  const auto [rows, columns] = pair(call, "kernel_size", kernel_size, 1, longest_axis);
  return python_shape(
      output_shape(conv2d_shape(call, x, {out, rows, columns, x[3]}, stride, padding)));
}

}  // namespace

void bind_conv2d(py::module_& m) {
  m.def("conv2d_output_shape", &conv2d_output_shape, py::arg("input_shape"),
        py::arg("out_channels"), py::arg("kernel_size"), py::arg("stride"), py::arg("padding"));
  m.def("conv2d", &conv2d, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("stride"),
        py::arg("padding"), py::arg("activation"), py::arg("out"));
  m.def("conv2d_backward_input", &conv2d_backward_input, py::arg("dy"), py::arg("weight"),
        py::arg("input_shape"), py::arg("stride"), py::arg("padding"), py::arg("out"));
  m.def("conv2d_backward_weight", &conv2d_backward_weight, py::arg("dy"), py::arg("x"),
        py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("out"));
}

}  // namespace chainrule::bindings
