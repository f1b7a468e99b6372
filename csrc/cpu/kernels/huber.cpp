// Huber's loss (P. J. Huber, "Robust Estimation of a Location Parameter", 1964). With r = ŷ_i - y_i
// and m = min(|r|, delta), each output adds m (|r| - m / 2): r² / 2 for a small error, and delta
// (|r| - delta / 2) for a large one. The derivative is r, limited to [-delta, delta].
#include "cpu/kernels/loss_rows.h"

namespace chainrule::CR_ISA {

template <class T>
void huber(const T* prediction, const T* target, const T* weight, T* losses, T* dprediction,
           double delta, double instances, const Rows& s) {
  using V = Vec<T>;
  const LossRows<T> rows{prediction, target, weight, losses, dprediction, instances};
  const auto add = [limit = V::set(static_cast<T>(delta)), half = V::set(T(0.5))](V total, V a, V b,
                                                                                  V& gradient) {
    const V error = a - b;
    const V size = max(V::zero() - error, error);
    const V small = min(limit, size);  // with this order of arguments NaN is kept
    gradient = max(V::zero() - limit, min(limit, error));
    return fma(small, size - half * small, total);
  };
  for_each_loss<T>(rows, s, T(1), T(0), 2, add);
}

CR_INSTANTIATE(huber);

}  // namespace chainrule::CR_ISA
