#include "bindings/conv_shapes.h"

#include <algorithm>

#include "bindings/scalars.h"
#include "cpu/max_value.h"

namespace chainrule::bindings {
namespace {

// Kernels also compute the number of padded pixels per image and the total of multiply-adds.
void require_countable(const Call& call, const Conv2d& s) {
  const Window& w = s.window;
  const Shape y = {s.batch, s.out_height, s.out_width, s.out};
  // A copy of the padded input leaves out the pixels between windows.
  const int64_t rows = (s.out_height - 1) * std::min(w.stride_rows, w.rows) + w.rows;
  const int64_t columns = (s.out_width - 1) * std::min(w.stride_columns, w.columns) + w.columns;
  checked_product(call.op(), {rows, columns, std::max<int64_t>(1, s.in), max_copies},
                  {rows, columns, s.in}, "the padded input of one image");
  checked_product(call.op(), {rows, columns, s.out, max_copies}, y);
  checked_product(call.op(), {s.out_height, s.out_width, s.out, max_copies}, y);
  checked_product(call.op(), {s.batch, s.out_height, s.out_width, s.out, s.in, w.rows, w.columns},
                  y);
  checked_product(call.op(), {s.out + 64, s.in + 64, w.rows, w.columns, 64},
                  {s.out, w.rows, w.columns, s.in});
  const Device& device = call.device();
  const auto require = [&](const char* what, int64_t count) {
    if (count <= device.max_extent()) return;
    call.value_error(std::string(what) + " must be at most " + std::to_string(device.max_extent()) +
                     " on " + device.name() + ", got " + std::to_string(count));
  };
  require("rows of x", s.height);
  require("columns of x", s.width);
  require("rows of y", s.out_height);
  require("columns of y", s.out_width);
  require("weights per filter", w.rows * w.columns * s.in);
  require("weights per channel", w.rows * w.columns * s.out);
}

}  // namespace

Filters filters_of(const ArrayView& weight) {
  return {dim(weight, 0), dim(weight, 1), dim(weight, 2), dim(weight, 3)};
}

Conv2d conv2d_shape(const Call& call, const Shape& x, const Filters& filters,
                    const py::object& stride_, const py::object& padding_) {
  if (filters.in != x[3]) {
    call.value_error("x and weight must have the same number of input channels, got " +
                     std::to_string(x[3]) + " and " + std::to_string(filters.in));
  }
  for (const int64_t axis : {x[1], x[2], filters.rows, filters.columns}) {
    if (axis > max_axis) {
      call.value_error("every axis must be at most " + std::to_string(max_axis) + " long, got " +
                       std::to_string(axis));
    }
  }
  if (filters.rows < 1 || filters.columns < 1) {
    call.value_error("kernel must have at least 1 row and 1 column, got " +
                     to_string({filters.rows, filters.columns}));
  }
  auto [stride_rows, stride_columns] = pair(call, "stride", stride_, 1, max_axis);
  int64_t pad_top = 0, pad_left = 0, padded_rows = x[1], padded_columns = x[2];
  if (py::isinstance<py::str>(padding_)) {
    const std::string name = padding_.cast<std::string>();
    if (name != "same") {
      call.value_error("padding must be an integer, a pair or \"same\", got " +
                       py::repr(padding_).cast<std::string>());
    }
    if (stride_rows != 1 || stride_columns != 1) {
      call.value_error("stride must be 1 with padding=\"same\", got " +
                       py::repr(stride_).cast<std::string>());
    }
    pad_top = (filters.rows - 1) / 2;
    pad_left = (filters.columns - 1) / 2;
    padded_rows += filters.rows - 1;
    padded_columns += filters.columns - 1;
  } else {
    std::tie(pad_top, pad_left) = pair(call, "padding", padding_, 0, max_axis);
    padded_rows += 2 * pad_top;
    padded_columns += 2 * pad_left;
  }
  if (filters.rows > padded_rows || filters.columns > padded_columns) {
    call.value_error("kernel must fit in the padded input " +
                     to_string({padded_rows, padded_columns}) + ", got " +
                     to_string({filters.rows, filters.columns}));
  }
  // A stride longer than the image gives one position. So does this one.
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
      .out_height = output_size(padded_rows, filters.rows, stride_rows),
      .out_width = output_size(padded_columns, filters.columns, stride_columns),
  };
}

Conv2d checked_conv2d_shape(const Call& call, const Shape& x, const Filters& filters,
                            const py::object& stride, const py::object& padding) {
  const Conv2d s = conv2d_shape(call, x, filters, stride, padding);
  require_countable(call, s);
  return s;
}

Shape output_shape(const Conv2d& s) { return {s.batch, s.out_height, s.out_width, s.out}; }

MaxPool2d max_pool2d_shape(const Call& call, const Shape& x, const py::object& window_,
                           const py::object& stride_) {
  const auto [rows, columns] = pair(call, "window", window_, 1, max_axis);
  auto [stride_rows, stride_columns] =
      stride_.is_none() ? std::pair{rows, columns} : pair(call, "stride", stride_, 1, max_axis);
  const std::string size = to_string({rows, columns});
  if (rows > x[1] || columns > x[2]) {
    call.value_error("window must fit in the input " + to_string({x[1], x[2]}) + ", got " + size);
  }
  if (rows > UINT16_MAX || columns > UINT16_MAX || rows * columns > UINT16_MAX) {
    call.value_error("window must have at most 65535 elements, got " + size);
  }
  stride_rows = std::min(stride_rows, x[1]);
  stride_columns = std::min(stride_columns, x[2]);
  return {
      .batch = x[0],
      .height = x[1],
      .width = x[2],
      .channels = x[3],
      .window = {rows, columns, stride_rows, stride_columns},
      .out_height = output_size(x[1], rows, stride_rows),
      .out_width = output_size(x[2], columns, stride_columns),
  };
}

Shape output_shape(const MaxPool2d& s) { return {s.batch, s.out_height, s.out_width, s.channels}; }

ImageShape python_shape(const Shape& shape) {
  return py::make_tuple(shape[0], shape[1], shape[2], shape[3]);
}

void require_argmax_in_window(const char* op, const ArrayView& argmax, const MaxPool2d& s) {
  const int64_t count = s.batch * s.out_height * s.out_width * s.channels;
  const HostCopy<uint16_t> host_argmax(argmax, count);
  if (!host_argmax) return;
  const int64_t area = s.window.rows * s.window.columns;
  const uint16_t largest = max_value(host_argmax.data(), count);
  if (largest >= area) {
    throw py::value_error(std::string(op) + ": argmax must be in [0, " + std::to_string(area) +
                          "), got " + std::to_string(largest));
  }
}

void require_shape(const Call& call, const char* what, const ArrayView& array, const Shape& shape) {
  if (shape_of(array) != shape) {
    call.value_error(std::string(what) + " must have shape " + to_string(shape) + ", got " +
                     to_string(shape_of(array)));
  }
}

}  // namespace chainrule::bindings
