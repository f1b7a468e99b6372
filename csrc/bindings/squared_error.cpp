#include "bindings/elementwise.h"
#include "bindings/module.h"

namespace chainrule::bindings {

void bind_squared_error(py::module_& m) {
  m.def(
      "squared_error",
      [](const py::object& prediction_, const py::object& target_, const py::object& out) -> Pair {
        Call call("squared_error");
        const Operand prediction = call.input("prediction", prediction_);
        const Operand target = call.input("target", target_);
        require_same_shape(call, "prediction", prediction, "target", target);
        if (prediction.ndim() == 0) {
          call.value_error("prediction must have at least 1 dimension, got 0");
        }
        const int64_t rows = dim(prediction, 0);
        const Rows s{rows, rows > 0 ? prediction.size() / rows : 0};
        const auto given = call.outputs(out, 2);
        const Operand losses = call.output(given[0], {rows});
        const Operand dprediction = call.output(given[1], shape_of(prediction), {prediction});
        call.run([=]<class T>(const Ops<T>& ops, T) {
          ops.squared_error(data<T>(prediction), data<T>(target), mutable_data<T>(losses),
                            mutable_data<T>(dprediction), s);
        });
        return py::make_tuple(losses.object(), dprediction.object());
      },
      py::arg("prediction"), py::arg("target"), py::arg("out"));
}

}  // namespace chainrule::bindings
