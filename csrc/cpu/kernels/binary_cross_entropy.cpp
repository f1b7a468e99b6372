// Binary cross-entropy of the sigmoid, σ(z) = 1 / (1 + e^-z), from the logit z and the target t:
//   loss = -t log σ(z) - (1 - t) log(1 - σ(z))        dz = σ(z) - t
// With q = e^-|z| <= 1, σ(-|z|) = q / (1 + q), and no term overflows or cancels:
//   loss = (z > 0 ? 1 - t : t) |z| + log(1 + q)       dz = z > 0 ? (1 - t) - σ(-|z|) : σ(-|z|) - t
#include "cpu/kernels/loss_rows.h"
#include "cpu/simd/math.h"

namespace chainrule::CR_ISA {

template <class T>
void binary_cross_entropy(const T* logits, const T* target, const T* weight, T* losses, T* dlogits,
                          double instances, const Rows& s) {
  using V = Vec<T>;
  const LossRows<T> rows{logits, target, weight, losses, dlogits, instances};
  const auto add = [one = V::set(T(1))](V total, V z, V t, V& gradient) {
    const V size = max(V::zero() - z, z);
    const V q = exp(V::zero() - size);
    const V unlikely = q / (one + q);
    const auto positive = z > V::zero();
    gradient = select(positive, (one - t) - unlikely, unlikely - t);
    return total + fma(select(positive, one - t, t), size, log1p_of_unit(q));
  };
  // The loss of a missing output is 0: its logit is far from 0, and its target is 0.
  for_each_loss<T>(rows, s, T(1), T(-1e30f), 16, add);
}

CR_INSTANTIATE(binary_cross_entropy);

}  // namespace chainrule::CR_ISA
