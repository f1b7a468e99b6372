// Softmax, eq. (55), and cross-entropy, eq. (64)–(67), in one pass over each row:
//   loss = log Σ_k e^{z_k} - z_c        dlogits = (softmax(z) - onehot(c)) / rows
// Fused, the loss needs no probability that could underflow to log 0.
#include "cpu/kernels/kernel.h"
#include "cpu/simd/math.h"

namespace chainrule::CR_ISA {

template <class T>
void softmax_cross_entropy(const T* logits, const int64_t* labels, T* losses, T* dlogits,
                           const Rows& s) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  const T share = T(1) / static_cast<T>(larger(1, s.rows));
  parallel_rows(s.rows, n, 4, [&](int64_t row) {
    const T* const z = logits + row * n;
    T* const dz = dlogits + row * n;
    const int64_t correct = labels[row];
    const T top = row_maximum(z, n);
    const T distance = top - z[correct];  // read before dz, which may be z, is written
    map_row(n, dz, [top = V::set(top)](V v) { return exp(v - top); }, z);
    const T total = row_sum(dz, n);
    losses[row] = log(total) + distance;
    map_row(n, dz, [scale = V::set(share / total)](V v) { return v * scale; }, dz);
    dz[correct] -= share;
  });
}

CR_INSTANTIATE(softmax_cross_entropy);

}  // namespace chainrule::CR_ISA
