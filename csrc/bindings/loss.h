// Bindings shared by the losses.
#pragma once

#include "bindings/call.h"

namespace chainrule::bindings {

// The optional weights of the rows, and the divisor of the gradient.
struct Weighting {
  ArrayView weight;  // null if all weights are 1
  double instances;
};

// Reads `weight`, an array (rows,) or None, and `instances`, a positive number or None. None means
// the sum of the weights, or the number of rows without weights.
Weighting weighting(Call& call, const py::object& weight, const py::object& instances,
                    int64_t rows);

// Runs a loss of a prediction and a target of the same shape: kernel(ops, prediction, target,
// weight, losses, dprediction, instances, rows).
template <class F>
Pair elementwise_loss(Call& call, const char* name, const py::object& prediction_,
                      const py::object& target_, const py::object& weight,
                      const py::object& instances, const py::object& out, F kernel) {
  const ArrayView prediction = call.input(name, prediction_);
  const ArrayView target = call.input("target", target_);
  if (shape_of(prediction) != shape_of(target)) {
    call.value_error(std::string(name) + " and target must have the same shape, got " +
                     to_string(shape_of(prediction)) + " and " + to_string(shape_of(target)));
  }
  if (prediction.ndim() == 0) {
    call.value_error(std::string(name) + " must have at least 1 dimension, got 0");
  }
  const int64_t rows = dim(prediction, 0);
  const Rows s{rows, rows > 0 ? prediction.size() / rows : 0};
  const Weighting w = weighting(call, weight, instances, rows);
  const auto given = call.unpack_out(out, 2);
  const ArrayView losses = call.output(given[0], {rows});
  const ArrayView dprediction = call.output(given[1], shape_of(prediction), {prediction});
  call.run([=]<class T>(const Ops<T>& ops, T) {
    kernel(ops, data<T>(prediction), data<T>(target), data<T>(w.weight), mutable_data<T>(losses),
           mutable_data<T>(dprediction), w.instances, s);
  });
  return py::make_tuple(losses.object(), dprediction.object());
}

}  // namespace chainrule::bindings
