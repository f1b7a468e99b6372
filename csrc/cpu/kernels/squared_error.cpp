// Squared error, eq. (35): losses = Σ_i (ŷ_i - y_i)². Its gradient, eq. (22), is that of the mean
// over the rows.
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

template <class T>
void squared_error(const T* prediction, const T* target, T* losses, T* dprediction, const Rows& s) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  const V gradient_scale = V::set(T(2) / static_cast<T>(max(1, s.rows)));
  parallel_for_rows(s.rows, n, 1, [&](int64_t row) {
    const T* const a = prediction + row * n;
    const T* const b = target + row * n;
    T* const to = dprediction + row * n;
    const auto part = [=](int64_t begin, int64_t end) {
      V total = V::zero();
      int64_t i = begin;
      for (; i + V::width <= end; i += V::width) {
        const V error = V::load(a + i) - V::load(b + i);
        total = fma(error, error, total);
        (gradient_scale * error).store(to + i);
      }
      if (i < end) {
        const int64_t left = end - i;
        const V error = V::load(a + i, left, T(0)) - V::load(b + i, left, T(0));
        total = fma(error, error, total);
        (gradient_scale * error).store(to + i, left);
      }
      return total;
    };
    losses[row] = reduce_sum(sum_in_parts<T>(n, max_part_terms * V::width, part));
  });
}

CR_INSTANTIATE(squared_error);

}  // namespace chainrule::CR_ISA
