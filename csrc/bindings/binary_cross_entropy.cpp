#include "bindings/loss.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_binary_cross_entropy(py::module_& m) {
  m.def(
      "binary_cross_entropy",
      [](const py::object& logits, const py::object& target, const py::object& weight,
         const py::object& instances, const py::object& out) {
        Call call("binary_cross_entropy");
        return elementwise_loss(
            call, "logits", logits, target, weight, instances, out,
            [](const auto& ops, auto z, auto t, auto w, auto losses, auto dz, double divisor,
               const Rows& s) { ops.binary_cross_entropy(z, t, w, losses, dz, divisor, s); });
      },
      py::arg("logits"), py::arg("target"), py::arg("weight"), py::arg("instances"),
      py::arg("out"));
}

}  // namespace chainrule::bindings
