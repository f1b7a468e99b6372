// Losses that are sums over the outputs of an instance, and the gradient of their weighted mean, in
// one pass.
#pragma once

#include "cuda/row_reduce.h"

namespace chainrule::cuda {

// Formula is a type with a member add(total, prediction, target, gradient), which returns `total`
// plus the loss of one output and sets its gradient.
template <class T, class Formula>
struct LossRows {
  const T* prediction;
  const T* target;
  const T* weight;  // null if all weights are 1
  T* losses;
  T* dprediction;
  T scale;  // of the gradient
  Formula formula;

  struct Output {
    T prediction, target;
  };

  template <class Row>
  __device__ void operator()(Row& row) const {
    const T* const a = prediction + row.index * row.columns;
    const T* const b = target + row.index * row.columns;
    T* const to = dprediction + row.index * row.columns;
    const auto outputs =
        row.values(Output{T(0), T(0)}, [=](int64_t i) { return Output{a[i], b[i]}; });
    const int64_t columns = row.columns;
    const T row_weight = weight && row.valid ? weight[row.index] : T(1);
    T total = outputs.template sum<T>(
        [=, factor = scale * row_weight, f = formula](T sum, Output v, int64_t i) {
          if (i >= columns) return sum;  // padding
          T gradient;
          sum = f.add(sum, v.prediction, v.target, gradient);
          to[i] = factor * gradient;
          return sum;
        });
    total = row.group.sum(total);
    if (row.is_leader()) losses[row.index] = row_weight * total;
  }
};

}  // namespace chainrule::cuda
