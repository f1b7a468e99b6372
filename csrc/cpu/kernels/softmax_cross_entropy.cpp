// Softmax, eq. (55), and cross-entropy, eq. (64)–(67), in one pass over each row:
//   loss = log Σ_k e^{z_k} - z_c        dlogits = (softmax(z) - onehot(c)) / instances
// Both are multiplied by the row's weight, if there are weights.
// The fused loss computes no probability, so log 0 by underflow cannot occur.
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/long_sums.h"
#include "cpu/simd/math.h"

namespace chainrule::CR_ISA {

template <class T>
void softmax_cross_entropy(const T* logits, const int64_t* labels, const T* weight, T* losses,
                           T* dlogits, double instances, const Rows& s) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  const T share = T(1) / static_cast<T>(instances);
  parallel_for_rows(s.rows, n, 4, [&](int64_t row) {
    const T* const z = logits + row * n;
    T* const dz = dlogits + row * n;
    const int64_t correct = checked_index(labels + row, n);
    const T top = row_max(z, n);
    const T distance = top - z[correct];  // read before dz is written, because dz may be z
    map_row(n, dz, [top = V::set(top)](V v) { return exp(v - top); }, z);
    const T total = row_sum(dz, n);
    const T row_weight = weight ? weight[row] : T(1), scale_per_row = share * row_weight;
    losses[row] = row_weight * (log(total) + distance);
    map_row(n, dz, [scale = V::set(scale_per_row / total)](V v) { return v * scale; }, dz);
    dz[correct] -= scale_per_row;
  });
}

CR_INSTANTIATE(softmax_cross_entropy);

}  // namespace chainrule::CR_ISA
