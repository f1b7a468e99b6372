#include "bindings/elementwise.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_tanh(py::module_& m) {
  bind_activation(
      m, {"tanh", "tanh_backward", "y"},
      [](const auto& ops, auto... arguments) { ops.tanh(arguments...); },
      [](const auto& ops, auto... arguments) { ops.tanh_backward(arguments...); });
}

}  // namespace chainrule::bindings
