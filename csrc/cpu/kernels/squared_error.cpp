// eq. (35): losses = Σ_i (ŷ_i - y_i)², and eq. (22) for the mean over the rows.
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

template <class T>
void squared_error(const T* prediction, const T* target, T* losses, T* dprediction, const Rows& s) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  const V share = V::set(T(2) / static_cast<T>(larger(1, s.rows)));
  parallel_rows(s.rows, n, 1, [&](int64_t row) {
    const T* const a = prediction + row * n;
    const T* const b = target + row * n;
    T* const to = dprediction + row * n;
    V total = V::zero();
    int64_t i = 0;
    for (; i + V::width <= n; i += V::width) {
      const V error = V::load(a + i) - V::load(b + i);
      total = fma(error, error, total);
      (share * error).store(to + i);
    }
    if (i < n) {
      const int64_t left = n - i;
      const V error = V::load(a + i, left, T(0)) - V::load(b + i, left, T(0));
      total = fma(error, error, total);
      (share * error).store(to + i, left);
    }
    losses[row] = sum(total);
  });
}

CR_INSTANTIATE(squared_error);

}  // namespace chainrule::CR_ISA
