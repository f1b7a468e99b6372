#include "bindings/array.h"
#include "bindings/operations.h"
#include "bindings/parameters.h"

namespace chainrule::bindings {
namespace {

struct Filters {
  int64_t out, rows, columns, in;
};

std::string by(int64_t rows, int64_t columns) {
  return std::to_string(rows) + "x" + std::to_string(columns);
}

// The shape of the convolution of `x` (batch, height, width, channels) with these filters.
Conv2d shape_from(const Call& call, const Shape& x, const Filters& filters,
                  const py::object& stride_, const py::object& padding_) {
  if (filters.in != x[3]) {
    call.value_error("weight has " + std::to_string(filters.in) + " input channels, x has " +
                     std::to_string(x[3]));
  }
  for (const int64_t axis : {x[1], x[2], filters.rows, filters.columns}) {
    if (axis > longest_axis) {
      call.value_error("an axis must be at most " + std::to_string(longest_axis) + " long, got " +
                       std::to_string(axis));
    }
  }
  if (filters.rows < 1 || filters.columns < 1) {
    call.value_error("weight must have at least one row and column, got " +
                     by(filters.rows, filters.columns));
  }
  auto [stride_rows, stride_columns] = pair(call, "stride", stride_, 1, longest_axis);
  int64_t pad_top = 0, pad_left = 0, padded_rows = x[1], padded_columns = x[2];
  if (py::isinstance<py::str>(padding_)) {
    const std::string name = padding_.cast<std::string>();
    if (name != "same") {
      call.value_error("padding must be an integer, a pair or \"same\", got \"" + name + '"');
    }
    if (stride_rows != 1 || stride_columns != 1) {
      call.value_error("padding=\"same\" wants stride 1, got " + by(stride_rows, stride_columns));
    }
    pad_top = (filters.rows - 1) / 2;
    pad_left = (filters.columns - 1) / 2;
    padded_rows += filters.rows - 1;
    padded_columns += filters.columns - 1;
  } else {
    std::tie(pad_top, pad_left) = pair(call, "padding", padding_, 0, longest_axis);
    padded_rows += 2 * pad_top;
    padded_columns += 2 * pad_left;
  }
  if (filters.rows > padded_rows || filters.columns > padded_columns) {
    call.value_error("kernel " + by(filters.rows, filters.columns) +
                     " is larger than the padded input " + by(padded_rows, padded_columns));
  }
  // A longer stride than the image gives one position, as this one does.
  stride_rows = std::min(stride_rows, padded_rows);
  stride_columns = std::min(stride_columns, padded_columns);
  return {
      .batch = x[0],
      .height = x[1],
      .width = x[2],
      .in = x[3],
      .out = filters.out,
      .window = {filters.rows, filters.columns, stride_rows, stride_columns},
      .pad_top = pad_top,
      .pad_left = pad_left,
      .out_height = window_positions(padded_rows, filters.rows, stride_rows),
      .out_width = window_positions(padded_columns, filters.columns, stride_columns),
  };
}

Filters filters_of(const py::array& weight) {
  return {dim(weight, 0), dim(weight, 1), dim(weight, 2), dim(weight, 3)};
}

Shape output_shape(const Conv2d& s) { return {s.batch, s.out_height, s.out_width, s.out}; }

// Kernels also count the padded pixels of an image and the multiply-adds of the whole.
void require_countable(const Call& call, const Conv2d& s) {
  const Window& w = s.window;
  const Shape y = {s.batch, s.out_height, s.out_width, s.out};
  product(call.op(),
          {(s.out_height - 1) * w.stride_rows + w.rows,
           (s.out_width - 1) * w.stride_columns + w.columns, std::max(s.in, s.out), 64},
          y);
  product(call.op(), {s.batch, s.out_height, s.out_width, s.out, s.in, w.rows, w.columns}, y);
  product(call.op(), {s.out + 64, s.in + 64, w.rows, w.columns, 64}, y);
}

py::array conv2d(const py::object& x_, const py::object& weight_, const py::object& bias_,
                 const py::object& stride, const py::object& padding, const py::object& activation,
                 const py::object& out) {
  Call call("conv2d");
  const py::array x = call.input("x", x_, 4);
  const py::array weight = call.input("weight", weight_, 4);
  const Conv2d s = shape_from(call, shape_of(x), filters_of(weight), stride, padding);
  py::array bias;
  const bool biased = !bias_.is_none();
  if (biased) {
    bias = call.input("bias", bias_, 1);
    if (dim(bias, 0) != s.out) {
      call.value_error("bias has " + std::to_string(dim(bias, 0)) + " elements, weight has " +
                       std::to_string(s.out) + " filters");
    }
  }
  const bool rectify = rectifies(call, activation);
  require_countable(call, s);
  py::array y = call.output(out, output_shape(s));
  if (y.size() > 0) {
    call.run_with_workspace(
        [=](const auto& ops, int workers) { return ops.conv2d_workspace(s, workers); },
        [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
          ops.conv2d(data<T>(x), data<T>(weight), biased ? data<T>(bias) : nullptr,
                     mutable_data<T>(y), rectify, s, workspace);
        });
  }
  return y;
}

void require_gradient_shape(const Call& call, const py::array& dy, const Conv2d& s) {
  if (shape_of(dy) != output_shape(s)) {
    call.value_error("dy must have shape " + to_string(output_shape(s)) + ", got " +
                     to_string(shape_of(dy)));
  }
}

py::array conv2d_backward_input(const py::object& dy_, const py::object& weight_,
                                const py::object& input_shape, const py::object& stride,
                                const py::object& padding, const py::object& out) {
  Call call("conv2d_backward_input");
  const py::array dy = call.input("dy", dy_, 4);
  const py::array weight = call.input("weight", weight_, 4);
  const Shape x = image_shape(call, "input_shape", input_shape);
  const Conv2d s = shape_from(call, x, filters_of(weight), stride, padding);
  require_gradient_shape(call, dy, s);
  require_countable(call, s);
  py::array dx = call.output(out, x);
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
  return dx;
}

ArrayPair conv2d_backward_weight(const py::object& dy_, const py::object& x_,
                                 const py::object& kernel_size, const py::object& stride,
                                 const py::object& padding, const py::object& out) {
  Call call("conv2d_backward_weight");
  const py::array dy = call.input("dy", dy_, 4);
  const py::array x = call.input("x", x_, 4);
  const auto [rows, columns] = pair(call, "kernel_size", kernel_size, 1, longest_axis);
  const Filters filters{dim(dy, 3), rows, columns, dim(x, 3)};
  const Conv2d s = shape_from(call, shape_of(x), filters, stride, padding);
  require_gradient_shape(call, dy, s);
  require_countable(call, s);
  const auto given = call.outputs(out, 2);
  py::array dweight = call.output(given[0], {s.out, rows, columns, s.in});
  py::array dbias = call.output(given[1], {s.out});
  call.run_with_workspace(
      [=](const auto& ops, int workers) {
        return ops.conv2d_backward_weight_workspace(s, workers);
      },
      [=]<class T>(const Ops<T>& ops, T, const Workspace& workspace) {
        ops.conv2d_backward_weight(data<T>(dy), data<T>(x), mutable_data<T>(dweight),
                                   mutable_data<T>(dbias), s, workspace);
      });
  return py::make_tuple(dweight, dbias);
}

}  // namespace

void bind_conv2d(py::module_& m) {
  m.def("conv2d", &conv2d, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("stride"),
        py::arg("padding"), py::arg("activation"), py::arg("out"));
  m.def("conv2d_backward_input", &conv2d_backward_input, py::arg("dy"), py::arg("weight"),
        py::arg("input_shape"), py::arg("stride"), py::arg("padding"), py::arg("out"));
  m.def("conv2d_backward_weight", &conv2d_backward_weight, py::arg("dy"), py::arg("x"),
        py::arg("kernel_size"), py::arg("stride"), py::arg("padding"), py::arg("out"));
}

}  // namespace chainrule::bindings
