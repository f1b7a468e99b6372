#include <cmath>

#include "bindings/elementwise.h"
#include "bindings/module.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

// A number in [0, 1).
double decay_rate(const Call& call, const char* name, const py::object& object) {
  const double value = number(call, name, object);
  if (!(value >= 0 && value < 1)) {
    call.value_error(std::string(name) + " must be in [0, 1), got " +
                     py::repr(object).cast<std::string>());
  }
  return value;
}

}  // namespace

void bind_adam(py::module_& m) {
  m.def(
      "adam",
      [](const py::object& parameters_, const py::object& gradient_,
         const py::object& first_moment_, const py::object& second_moment_,
         const py::object& learning_rate_, const py::object& step_, const py::object& beta1,
         const py::object& beta2, const py::object& eps, const py::object& l2,
         const py::object& weight_decay) {
        Call call("adam");
        const ArrayView gradient = call.input("gradient", gradient_);
        // Before the updated arrays, because they must not overlap it.
        const ReplayScalar<double> learning_rate =
            replay_number(call, "learning_rate", learning_rate_);
        const ReplayScalar<uint64_t> step = replay_unsigned(call, "step", step_);
        const auto updated = [&](const char* name, const py::object& object) {
          const ArrayView array = call.updated(name, object);
          require_same_shape(call, name, array, "gradient", gradient);
          return array;
        };
        const ArrayView parameters = updated("parameters", parameters_);
        const ArrayView first_moment = updated("first_moment", first_moment_);
        const ArrayView second_moment = updated("second_moment", second_moment_);
        const Adam s{
            .size = parameters.size(),
            .step = 0,
            .learning_rate = 0,
            .beta1 = decay_rate(call, "beta1", beta1),
            .beta2 = decay_rate(call, "beta2", beta2),
            .eps = number(call, "eps", eps),
            .l2 = number(call, "l2", l2),
            .weight_decay = number(call, "weight_decay", weight_decay),
        };
        call.run([=]<class T>(const Ops<T>& ops, T) {
          Adam current = s;
          current.learning_rate = learning_rate.get();
          current.device_learning_rate = learning_rate.gpu_address();
          current.step = step.get();
          current.device_step = step.gpu_address();
          if (!std::isfinite(current.learning_rate)) {
            throw py::value_error("adam: learning_rate must be finite, got " +
                                  std::to_string(current.learning_rate));
          }
          if (current.step == 0 && !current.device_step) {
            throw py::value_error("adam: step must be at least 1, got 0");
          }
          ops.adam(mutable_data<T>(parameters), data<T>(gradient), mutable_data<T>(first_moment),
                   mutable_data<T>(second_moment), current);
        });
      },
      py::arg("parameters"), py::arg("gradient"), py::arg("first_moment"), py::arg("second_moment"),
      py::arg("learning_rate"), py::arg("step"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"),
      py::arg("l2"), py::arg("weight_decay"));
}

}  // namespace chainrule::bindings
