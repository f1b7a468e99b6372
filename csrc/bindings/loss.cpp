#include "bindings/loss.h"

#include <algorithm>
#include <cmath>

#include "bindings/program.h"
#include "bindings/scalars.h"

namespace chainrule::bindings {
namespace {

template <class T>
double sum_of(const Call& call, const ArrayView& weight, int64_t count) {
  // A program would keep the sum of the recording, whatever weights it reads later.
  if (Program::recording()) {
    call.value_error("instances must be a number if a program records weights, got None");
  }
  const HostCopy<T> values(weight, count);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
  if (!(sum > 0) || !std::isfinite(sum)) {
    call.value_error("weight must have a positive finite sum, got " +
                     py::str(py::float_(sum)).cast<std::string>());
  }
  return sum;
}

}  // namespace

Weighting weighting(Call& call, const py::object& weight_, const py::object& instances_,
                    int64_t rows) {
  Weighting w{{}, static_cast<double>(std::max<int64_t>(1, rows))};
  if (!weight_.is_none()) {
    w.weight = call.input("weight", weight_, 1);
    if (dim(w.weight, 0) != rows) {
      call.value_error("weight must have one value for each of the " + std::to_string(rows) +
                       " rows, got " + std::to_string(dim(w.weight, 0)));
    }
  }
  if (!instances_.is_none()) {
    w.instances = number(call, "instances", instances_);
    if (!(w.instances > 0)) {
      call.value_error("instances must be positive, got " +
                       py::str(instances_).cast<std::string>());
    }
  } else if (!weight_.is_none() && rows > 0) {
    w.instances = w.weight.type() == DType::f64 ? sum_of<double>(call, w.weight, rows)
                                                : sum_of<float>(call, w.weight, rows);
  }
  return w;
}

}  // namespace chainrule::bindings
