#include "bindings/array.h"
#include "bindings/operations.h"
#include "bindings/parameters.h"

namespace chainrule::bindings {
namespace {

MaxPool2d shape_from(const Call& call, const Shape& x, const py::object& window_,
                     const py::object& stride_) {
  const auto [rows, columns] = pair(call, "window", window_, 1, longest_axis);
  auto [stride_rows, stride_columns] =
      stride_.is_none() ? std::pair{rows, columns} : pair(call, "stride", stride_, 1, longest_axis);
  const std::string size = std::to_string(rows) + "x" + std::to_string(columns);
  if (rows > x[1] || columns > x[2]) {
    call.value_error("window " + size + " is larger than the input " + std::to_string(x[1]) + "x" +
                     std::to_string(x[2]));
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
      .out_height = window_positions(x[1], rows, stride_rows),
      .out_width = window_positions(x[2], columns, stride_columns),
  };
}

// The kernel writes where these say.
void require_in_window(const uint16_t* codes, int64_t count, const Window& window) {
  const int64_t area = window.rows * window.columns;
  uint16_t worst = 0;
  for (int64_t i = 0; i < count; ++i) worst = std::max(worst, codes[i]);
  if (worst >= area) {
    throw py::value_error("max_pool2d_backward: argmax must lie in [0, " + std::to_string(area) +
                          "), got " + std::to_string(worst));
  }
}

Shape output_shape(const MaxPool2d& s) { return {s.batch, s.out_height, s.out_width, s.channels}; }

ArrayPair max_pool2d(const py::object& x_, const py::object& window, const py::object& stride,
                     const py::object& out) {
  Call call("max_pool2d");
  const py::array x = call.input("x", x_, 4);
  const MaxPool2d s = shape_from(call, shape_of(x), window, stride);
  const auto given = call.outputs(out, 2);
  py::array y = call.output(given[0], output_shape(s));
  py::array argmax = call.output_positions(given[1], output_shape(s));
  call.run([=]<class T>(const Ops<T>& ops, T) {
    ops.max_pool2d(data<T>(x), mutable_data<T>(y), mutable_data<uint16_t>(argmax), s);
  });
  return py::make_tuple(y, argmax);
}

py::array max_pool2d_backward(const py::object& dy_, const py::object& argmax_,
                              const py::object& input_shape, const py::object& window,
                              const py::object& stride, const py::object& out) {
  Call call("max_pool2d_backward");
  const py::array dy = call.input("dy", dy_, 4);
  const py::array argmax = call.positions("argmax", argmax_);
  const Shape x = image_shape(call, "input_shape", input_shape);
  const MaxPool2d s = shape_from(call, x, window, stride);
  for (const auto& [name, array] : {std::pair{"dy", &dy}, std::pair{"argmax", &argmax}}) {
    if (shape_of(*array) != output_shape(s)) {
      call.value_error(std::string(name) + " must have shape " + to_string(output_shape(s)) +
                       ", got " + to_string(shape_of(*array)));
    }
  }
  py::array dx = call.output(out, x);
  call.run([=]<class T>(const Ops<T>& ops, T) {
    const uint16_t* const codes = data<uint16_t>(argmax);
    require_in_window(codes, static_cast<int64_t>(argmax.size()), s.window);
    ops.max_pool2d_backward(data<T>(dy), codes, mutable_data<T>(dx), s);
  });
  return dx;
}

}  // namespace

void bind_max_pool2d(py::module_& m) {
  m.def("max_pool2d", &max_pool2d, py::arg("x"), py::arg("window"), py::arg("stride"),
        py::arg("out"));
  m.def("max_pool2d_backward", &max_pool2d_backward, py::arg("dy"), py::arg("argmax"),
        py::arg("input_shape"), py::arg("window"), py::arg("stride"), py::arg("out"));
}

}  // namespace chainrule::bindings
