// Losses that are sums over the outputs of an instance, and the gradient of their weighted mean, in
// one pass.
#pragma once

#include "cuda/row_reduce.h"

namespace chainrule::cuda {

// Formula is a type with a member add(total, prediction, target, gradient), which returns `total`
// plus the loss of one output and sets its gradient. If `one_at_a_time`, a thread reads one output
// after the other, because several at once would spill registers.
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
    const int64_t columns = row.columns;
    const T row_weight = weight && row.valid ? weight[row.index] : T(1);
    const auto add = [=, factor = scale * row_weight, f = formula](T sum, Output v, int64_t i) {
      if (i >= columns) return sum;  // padding
      T gradient;
      sum = f.add(sum, v.prediction, v.target, gradient);
      to[i] = factor * gradient;
      return sum;
    };
    T total;
    if constexpr (Formula::one_at_a_time) {
      LongSum<T> sum;
      const int64_t step = row.group.size();
      int64_t terms = 0;  // counted, because a division of 64 bits takes many registers
#pragma unroll 1
      for (int64_t i = row.group.rank(); i < columns; i += step) {
        sum.part = add(sum.part, Output{a[i], b[i]}, i);
        sum.added(++terms);
      }
      total = sum.total();
    } else {
      const auto read = [=](int64_t i) { return Output{a[i], b[i]}; };
      total = row.values(Output{T(0), T(0)}, read).template sum<T>(add);
    }
    total = row.group.sum(total);
    if (row.is_leader()) losses[row.index] = row_weight * total;
  }
};

}  // namespace chainrule::cuda
