#include <cmath>

#include "bindings/elementwise.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {

void bind_sgd(py::module_& m) {
  m.def(
      "sgd",
      [](const py::object& parameters_, const py::object& gradient_, const py::object& velocity_,
         const py::object& learning_rate_, const py::object& momentum, const py::object& nesterov,
         const py::object& l2) {
        Call call("sgd");
        const ArrayView gradient = call.input("gradient", gradient_);
        // Before the updated arrays, because they must not overlap it.
        const ReplayScalar<double> learning_rate =
            replay_number(call, "learning_rate", learning_rate_);
        const ArrayView parameters = call.updated("parameters", parameters_);
        require_same_shape(call, "parameters", parameters, "gradient", gradient);
        const Sgd s{
            .size = parameters.size(),
            .learning_rate = 0,
            .momentum = number(call, "momentum", momentum),
            .l2 = number(call, "l2", l2),
            .nesterov = boolean(call, "nesterov", nesterov),
        };
        ArrayView velocity;
        if (!velocity_.is_none()) {
          velocity = call.updated("velocity", velocity_);
          require_same_shape(call, "parameters", parameters, "velocity", velocity);
        } else if (s.momentum != 0) {
          call.value_error("velocity must be an array if momentum is not 0, got None");
        }
        call.run([=]<class T>(const Ops<T>& ops, T) {
          Sgd current = s;
          current.learning_rate = learning_rate.get();
          current.device_learning_rate = learning_rate.gpu_address();
          if (!std::isfinite(current.learning_rate)) {
            throw py::value_error("sgd: learning_rate must be finite, got " +
                                  std::to_string(current.learning_rate));
          }
          ops.sgd(mutable_data<T>(parameters), data<T>(gradient), mutable_data<T>(velocity),
                  current);
        });
      },
      py::arg("parameters"), py::arg("gradient"), py::arg("velocity"), py::arg("learning_rate"),
      py::arg("momentum"), py::arg("nesterov"), py::arg("l2"));
}

}  // namespace chainrule::bindings
