// Softmax, eq. (55), and cross-entropy, eq. (64)–(67), in one pass over each row:
//   loss = log Σ_k e^{z_k} - z_c        dlogits = (softmax(z) - onehot(c)) / rows
// Fused, the loss needs no probability that could underflow to log 0.
#include <cmath>

#include "cuda/kernel.h"
#include "cuda/row_reduce.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct CrossEntropy {
  const T* logits;
  const int64_t* labels;
  T* losses;
  T* dlogits;
  T share;
  int* found;

  template <class Row>
  __device__ void operator()(Row& row) const {
    const T* const z = logits + row.number * row.columns;
    T* const dz = dlogits + row.number * row.columns;
    int64_t correct = row.there ? labels[row.number] : 0;
    if (row.there && (correct < 0 || correct >= row.columns)) {
      if (row.leads()) atomicOr(found, bad_label);
      correct = 0;
    }
    // Read before dz, which may be z, is written. A bad label may mean that there are no classes.
    const T chosen = row.leads() && row.columns > 0 ? z[correct] : T(0);
    const auto values = row.values(T(-INFINITY), [=](int64_t i) { return z[i]; });
    T top = T(-INFINITY);
    values.fold([&](T v) { top = fmax(top, v); });
    top = row.group.maximum(top);
    const auto powers = values.mapped([=](T v) { return exp(v - top); });
    T total = T(0);
    powers.fold([&](T v) { total += v; });
    total = row.group.sum(total);
    if (row.leads()) losses[row.number] = log(total) + (top - chosen);
    const T scale = share / total;
    powers.each(
        [=, part = share](T v, int64_t i) { dz[i] = v * scale - (i == correct ? part : T(0)); });
  }
};

}  // namespace

template <class T>
void softmax_cross_entropy(const T* logits, const int64_t* labels, T* losses, T* dlogits,
                           const Rows& s) {
  const T share = T(1) / static_cast<T>(larger(1, s.rows));
  over_rows<T>(s, CrossEntropy<T>{logits, labels, losses, dlogits, share, faults()});
}

CR_INSTANTIATE(softmax_cross_entropy);

}  // namespace chainrule::cuda
