#include "bindings/elementwise.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_relu(py::module_& m) {
  bind_activation(
      m, {"relu", "relu_backward", "y"},
      [](const auto& ops, auto... arguments) { ops.relu(arguments...); },
      [](const auto& ops, auto... arguments) { ops.relu_backward(arguments...); });
}

}  // namespace chainrule::bindings
