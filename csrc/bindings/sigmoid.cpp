#include "bindings/elementwise.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_sigmoid(py::module_& m) {
  bind_activation(
      m, {"sigmoid", "sigmoid_backward", "y"},
      [](const auto& ops, auto... arguments) { ops.sigmoid(arguments...); },
      [](const auto& ops, auto... arguments) { ops.sigmoid_backward(arguments...); });
}

}  // namespace chainrule::bindings
