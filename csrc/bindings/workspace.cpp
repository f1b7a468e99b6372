// Workspace sizes of layers in bytes, for memory estimates before any array exists.
#include <algorithm>

#include "bindings/conv_shapes.h"
#include "bindings/cuda_array.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

const Device& device(bool on_gpu) { return on_gpu ? gpu() : cpu(); }

// Returns f(ops, workers) for the kernel table of a device and dtype.
template <class F>
int64_t workspace_bytes(bool on_gpu, bool float64, F f) {
  const Backend& backend = device(on_gpu).backend();
  return float64 ? f(backend.f64, num_threads()) : f(backend.f32, num_threads());
}

int64_t linear_workspace(int64_t batch, int64_t in, int64_t out, bool float64, bool on_gpu) {
  const Linear s{.batch = batch, .in = in, .out = out};
  const auto at_least_1 = [](int64_t count) { return std::max<int64_t>(1, count); };
  checked_product("linear", {at_least_1(batch), at_least_1(in), at_least_1(out), max_copies},
                  {batch, in, out});
  return workspace_bytes(on_gpu, float64, [&](const auto& ops, int workers) {
    return std::max(ops.linear_workspace(s, workers), ops.linear_backward_workspace(s, workers));
  });
}

int64_t convolution_workspace(const py::object& x, const py::object& weight,
                              const py::object& stride, const py::object& padding,
                              const py::object& window, bool need_dx, bool float64, bool on_gpu) {
  const Call call("conv2d", &device(on_gpu));
  const Shape w = image_shape(call, "weight", weight);
  const Filters filters{w[0], w[1], w[2], w[3]};
  const Conv2d s = checked_conv2d_shape(call, image_shape(call, "x", x), filters, stride, padding);
  if (window.is_none()) {
    return workspace_bytes(on_gpu, float64, [&](const auto& ops, int workers) {
      return std::max({ops.conv2d_workspace(s, workers),
                       need_dx ? ops.conv2d_backward_input_workspace(s, workers) : 0,
                       ops.conv2d_backward_weight_workspace(s, workers)});
    });
  }
  const MaxPool2d p = max_pool2d_shape(call, output_shape(s), window, py::none());
  return workspace_bytes(on_gpu, float64, [&](const auto& ops, int workers) {
    return std::max({ops.conv2d_pooled_workspace(s, p, workers),
                     need_dx ? ops.conv2d_pooled_backward_input_workspace(s, p, workers) : 0,
                     ops.conv2d_pooled_backward_weight_workspace(s, p, workers)});
  });
}

}  // namespace

void bind_workspace(py::module_& m) {
  m.def("linear_workspace", &linear_workspace, py::arg("batch"), py::arg("inputs"),
        py::arg("outputs"), py::arg("float64"), py::arg("on_gpu"));
  m.def("conv2d_workspace", &convolution_workspace, py::arg("x"), py::arg("weight"),
        py::arg("stride"), py::arg("padding"), py::arg("window"), py::arg("need_dx"),
        py::arg("float64"), py::arg("on_gpu"));
}

}  // namespace chainrule::bindings
