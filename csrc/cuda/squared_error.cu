// Squared error, eq. (35): losses = Σ_i (ŷ_i - y_i)². Gradient of the mean over the rows, eq. (22).
#include "cuda/kernel.h"
#include "cuda/row_reduce.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct SquaredError {
  const T* prediction;
  const T* target;
  T* losses;
  T* dprediction;
  T share;

  template <class Row>
  __device__ void operator()(Row& row) const {
    const T* const a = prediction + row.index * row.columns;
    const T* const b = target + row.index * row.columns;
    T* const to = dprediction + row.index * row.columns;
    const auto errors = row.values(T(0), [=](int64_t i) { return a[i] - b[i]; });
    const int64_t columns = row.columns;
    T total = errors.template sum<T>([=, factor = share](T sum, T error, int64_t i) {
      if (i < columns) to[i] = factor * error;
      return fma(error, error, sum);  // the padding adds 0
    });
    total = row.group.sum(total);
    if (row.is_leader()) losses[row.index] = total;
  }
};

}  // namespace

template <class T>
void squared_error(const T* prediction, const T* target, T* losses, T* dprediction, const Rows& s) {
  const T share = T(2) / static_cast<T>(max(1, s.rows));
  for_each_row<T>(s, SquaredError<T>{prediction, target, losses, dprediction, share});
}

CR_INSTANTIATE(squared_error);

}  // namespace chainrule::cuda
