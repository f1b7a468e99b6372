// Squared error, eq. (35): losses = Σ_i (ŷ_i - y_i)². Gradient of the mean over the rows, eq. (22).
#include <cmath>

#include "cuda/kernel.h"
#include "cuda/loss_rows.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct SquaredError {
  static constexpr bool one_at_a_time = false;
  __device__ T add(T total, T prediction, T target, T& gradient) const {
    gradient = prediction - target;
    return fma(gradient, gradient, total);
  }
};

}  // namespace

template <class T>
void squared_error(const T* prediction, const T* target, const T* weight, T* losses, T* dprediction,
                   double instances, const Rows& s) {
  const T scale = T(2) / static_cast<T>(instances);
  for_each_row<T>(
      s, LossRows<T, SquaredError<T>>{prediction, target, weight, losses, dprediction, scale, {}});
}

CR_INSTANTIATE(squared_error);

}  // namespace chainrule::cuda
