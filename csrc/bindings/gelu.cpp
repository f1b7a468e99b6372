#include "bindings/elementwise.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_gelu(py::module_& m) {
  bind_activation(
      m, {"gelu", "gelu_backward", "x"},
      [](const auto& ops, auto... arguments) { ops.gelu(arguments...); },
      [](const auto& ops, auto... arguments) { ops.gelu_backward(arguments...); });
}

}  // namespace chainrule::bindings
