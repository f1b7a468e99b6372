#include "bindings/elementwise.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_relu(py::module_& m) {
  m.def(
      "relu",
      [](const py::object& x, const py::object& out) {
        Call call("relu");
        return elementwise(call, x, out,
                           [](const auto& ops, auto... arguments) { ops.relu(arguments...); });
      },
      py::arg("x"), py::arg("out"));
  m.def(
      "relu_backward",
      [](const py::object& dy, const py::object& y, const py::object& out) {
        Call call("relu_backward");
        return elementwise_backward(call, dy, "y", y, out, [](const auto& ops, auto... arguments) {
          ops.relu_backward(arguments...);
        });
      },
      py::arg("dy"), py::arg("y"), py::arg("out"));
}

}  // namespace chainrule::bindings
