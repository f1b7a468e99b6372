// Binary cross-entropy of the sigmoid, from the logit z and the target t. With q = e^-|z| <= 1 and
// σ(-|z|) = q / (1 + q), no term overflows or cancels:
//   loss = (z > 0 ? 1 - t : t) |z| + log(1 + q)      dz = z > 0 ? (1 - t) - σ(-|z|) : σ(-|z|) - t
#include <cmath>

#include "cuda/kernel.h"
#include "cuda/loss_rows.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct BinaryCrossEntropy {
  static constexpr bool one_at_a_time = true;
  __device__ T add(T total, T z, T t, T& gradient) const {
    const T size = fabs(z), q = exp(-size), unlikely = q / (T(1) + q);
    gradient = z > T(0) ? (T(1) - t) - unlikely : unlikely - t;
    return total + fma(z > T(0) ? T(1) - t : t, size, log1p(q));
  }
};

}  // namespace

template <class T>
void binary_cross_entropy(const T* logits, const T* target, const T* weight, T* losses, T* dlogits,
                          double instances, const Rows& s) {
  const T scale = T(1) / static_cast<T>(instances);
  for_each_row<T>(
      s, LossRows<T, BinaryCrossEntropy<T>>{logits, target, weight, losses, dlogits, scale, {}});
}

CR_INSTANTIATE(binary_cross_entropy);

}  // namespace chainrule::cuda
