#include "bindings/loss.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_squared_error(py::module_& m) {
  m.def(
      "squared_error",
      [](const py::object& prediction, const py::object& target, const py::object& weight,
         const py::object& instances, const py::object& out) {
        Call call("squared_error");
        return elementwise_loss(
            call, "prediction", prediction, target, weight, instances, out,
            [](const auto& ops, auto z, auto t, auto w, auto losses, auto dz, double divisor,
               const Rows& s) { ops.squared_error(z, t, w, losses, dz, divisor, s); });
      },
      py::arg("prediction"), py::arg("target"), py::arg("weight"), py::arg("instances"),
      py::arg("out"));
}

}  // namespace chainrule::bindings
