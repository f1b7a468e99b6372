#include <limits>

#include "bindings/loss.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {

void bind_huber(py::module_& m) {
  m.def(
      "huber",
      [](const py::object& prediction, const py::object& target, const py::object& delta_,
         const py::object& weight, const py::object& instances, const py::object& out) {
        Call call("huber");
        const double delta = number(call, "delta", delta_);
        // In float32 a smaller one would be 0, and a larger one infinite.
        if (!(delta >= std::numeric_limits<float>::min()) ||
            delta > std::numeric_limits<float>::max()) {
          call.value_error("delta must be positive, from 1.2e-38 to 3.4e38, got " +
                           py::str(delta_).cast<std::string>());
        }
        return elementwise_loss(
            call, "prediction", prediction, target, weight, instances, out,
            [delta](const auto& ops, auto a, auto b, auto w, auto losses, auto da, double divisor,
                    const Rows& s) { ops.huber(a, b, w, losses, da, delta, divisor, s); });
      },
      py::arg("prediction"), py::arg("target"), py::arg("delta"), py::arg("weight"),
      py::arg("instances"), py::arg("out"));
}

}  // namespace chainrule::bindings
