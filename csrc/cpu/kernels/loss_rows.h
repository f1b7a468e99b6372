// Losses that are sums over the outputs of an instance, and the gradient of their weighted mean, in
// one pass.
#pragma once

#include "cpu/kernels/kernel.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

// The arrays of one call. `weight` has one value per row, or is null: then all weights are 1. The
// mean is the sum of weight · loss over the rows, divided by `instances`.
template <class T>
struct LossRows {
  const T* prediction;
  const T* target;
  const T* weight;
  T* losses;
  T* dprediction;
  double instances;
};

// Calls add(total, prediction, target, gradient), which returns `total` plus the losses of a vector
// and sets their gradient. The gradient is then multiplied by factor / instances. Missing lanes of
// the prediction are `fill`, those of the target are 0, and their loss must be 0.
template <class T, class F>
void for_each_loss(const LossRows<T>& p, const Rows& s, T factor, T fill, int64_t cycles, F add) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  const T scale = factor / static_cast<T>(p.instances);
  if (n == 1) {  // one output per instance: vectors go over the rows
    parallel_for_ranges(s.rows, elementwise_multiple, elementwise_range, cycles,
                        [=](int64_t begin, int64_t end) {
                          for_each_vector<T>(end - begin, [=](int64_t i, auto lanes) {
                            const int64_t row = begin + i;
                            V gradient, weighted = V::set(scale);
                            V loss = add(V::zero(), lanes.load(p.prediction + row),
                                         lanes.load(p.target + row), gradient);
                            if (p.weight) {
                              const V weight = lanes.load(p.weight + row);
                              loss = weight * loss;
                              weighted = weighted * weight;
                            }
                            lanes.store(loss, p.losses + row);
                            lanes.store(weighted * gradient, p.dprediction + row);
                          });
                        });
    return;
  }
  const auto run = [&](auto weight_of) {
    parallel_for_rows(s.rows, n, cycles, [=](int64_t row) {
      const T* const a = p.prediction + row * n;
      const T* const b = p.target + row * n;
      T* const to = p.dprediction + row * n;
      const T weight = weight_of(row);
      const auto part = [=, weighted = V::set(scale * weight)](int64_t begin, int64_t end) {
        V total = V::zero(), gradient;
        int64_t i = begin;
        for (; i + V::width <= end; i += V::width) {
          total = add(total, V::load(a + i), V::load(b + i), gradient);
          (weighted * gradient).store(to + i);
        }
        if (i < end) {
          const int64_t left = end - i;
          total = add(total, V::load(a + i, left, fill), V::load(b + i, left, T(0)), gradient);
          (weighted * gradient).store(to + i, left);
        }
        return total;
      };
      p.losses[row] = weight * reduce_sum(sum_in_parts<T>(n, max_part_terms * V::width, part));
    });
  };
  if (p.weight) run([=](int64_t row) { return p.weight[row]; });
  else run([](int64_t) { return T(1); });
}

}  // namespace chainrule::CR_ISA
