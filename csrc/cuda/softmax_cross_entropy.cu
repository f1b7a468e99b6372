// Softmax, eq. (55), and cross-entropy, eq. (64)-(67), in one pass over each row:
//    loss = log Σ_k e^{z_k} - z_c        dlogits = (softmax(z) - onehot(c)) / instances
// Both are multiplied by the row's weight, if there are weights.
// Fused, so that the loss needs no probability, which could underflow to log 0.
#include <cmath>

#include "cuda/kernel.h"
#include "cuda/row_reduce.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct CrossEntropy {
  const T* logits;
  const int64_t* labels;
  const T* weight;
  T* losses;
  T* dlogits;
  T share;
  int* errors;

  template <class Row>
  __device__ void operator()(Row& row) const {
    const T* const z = logits + row.index * row.columns;
    T* const dz = dlogits + row.index * row.columns;
    int64_t correct = row.valid ? labels[row.index] : 0;
    if (row.valid && (correct < 0 || correct >= row.columns)) {
      if (row.is_leader()) atomicOr(errors, bad_label);
      correct = 0;
    }
    // Read before dz is written, because dz may alias z. With a bad label there may be no classes
    // at all.
    const T label_logit = row.is_leader() && row.columns > 0 ? z[correct] : T(0);
    const auto values = row.values(T(-INFINITY), [=](int64_t i) { return z[i]; });
    T top = T(-INFINITY);
    values.fold([&](T v) { top = fmax(top, v); });
    top = row.group.maximum(top);
    const auto powers = values.map([=](T v) { return exp(v - top); });
    const T total =
        row.group.sum(powers.template sum<T>([](T sum, T v, int64_t) { return sum + v; }));
    const T row_weight = weight && row.valid ? weight[row.index] : T(1);
    if (row.is_leader()) losses[row.index] = row_weight * (log(total) + (top - label_logit));
    const T part = share * row_weight, scale = part / total;
    powers.for_each([=](T v, int64_t i) { dz[i] = v * scale - (i == correct ? part : T(0)); });
  }
};

}  // namespace

template <class T>
void softmax_cross_entropy(const T* logits, const int64_t* labels, const T* weight, T* losses,
                           T* dlogits, double instances, const Rows& s) {
  const T share = T(1) / static_cast<T>(instances);
  for_each_row<T>(s,
                  CrossEntropy<T>{logits, labels, weight, losses, dlogits, share, device_errors()});
}

CR_INSTANTIATE(softmax_cross_entropy);

}  // namespace chainrule::cuda
