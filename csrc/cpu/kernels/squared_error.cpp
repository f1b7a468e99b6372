// Squared error, eq. (35): losses = Σ_i (ŷ_i - y_i)². Its gradient, eq. (22), is that of the mean
// over the rows.
#include "cpu/kernels/loss_rows.h"

namespace chainrule::CR_ISA {

template <class T>
void squared_error(const T* prediction, const T* target, const T* weight, T* losses, T* dprediction,
                   double instances, const Rows& s) {
  using V = Vec<T>;
  const LossRows<T> rows{prediction, target, weight, losses, dprediction, instances};
  for_each_loss<T>(rows, s, T(2), T(0), 1, [](V total, V a, V b, V& gradient) {
    gradient = a - b;
    return fma(gradient, gradient, total);
  });
}

CR_INSTANTIATE(squared_error);

}  // namespace chainrule::CR_ISA
