// Huber's loss. With r = ŷ_i - y_i and m = min(|r|, delta), each output adds m (|r| - m / 2). The
// derivative is r, limited to [-delta, delta].
#include <cmath>

#include "cuda/kernel.h"
#include "cuda/loss_rows.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct Huber {
  static constexpr bool one_at_a_time = false;
  T delta;

  __device__ T add(T total, T prediction, T target, T& gradient) const {
    const T error = prediction - target, size = fabs(error);
    // Written as comparisons, so that NaN is kept.
    const T small = size > delta ? delta : size;
    gradient = size > delta ? copysign(delta, error) : error;
    return fma(small, size - T(0.5) * small, total);
  }
};

}  // namespace

template <class T>
void huber(const T* prediction, const T* target, const T* weight, T* losses, T* dprediction,
           double delta, double instances, const Rows& s) {
  const T scale = T(1) / static_cast<T>(instances);
  for_each_row<T>(
      s, LossRows<T, Huber<T>>{
             prediction, target, weight, losses, dprediction, scale, {static_cast<T>(delta)}});
}

CR_INSTANTIATE(huber);

}  // namespace chainrule::cuda
