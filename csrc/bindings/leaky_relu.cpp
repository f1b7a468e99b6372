#include "bindings/elementwise.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {

void bind_leaky_relu(py::module_& m) {
  m.def(
      "leaky_relu",
      [](const py::object& x, const py::object& slope_, const py::object& out) {
        Call call("leaky_relu");
        const double slope = number(call, "slope", slope_);
        return elementwise(call, x, out, [=](const auto& ops, auto from, auto to, int64_t n) {
          ops.leaky_relu(from, to, slope, n);
        });
      },
      py::arg("x"), py::arg("slope"), py::arg("out"));
  m.def(
      "leaky_relu_backward",
      [](const py::object& dy, const py::object& x, const py::object& slope_,
         const py::object& out) {
        Call call("leaky_relu_backward");
        const double slope = number(call, "slope", slope_);
        return elementwise_backward(call, dy, "x", x, out,
                                    [=](const auto& ops, auto g, auto saved, auto to, int64_t n) {
                                      ops.leaky_relu_backward(g, saved, to, slope, n);
                                    });
      },
      py::arg("dy"), py::arg("x"), py::arg("slope"), py::arg("out"));
}

}  // namespace chainrule::bindings
