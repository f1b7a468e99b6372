// Softmax over rows, eq. (55)-(57). Each row's maximum is subtracted first, so no finite row
// overflows. A row with NaN, with +inf, or of only -inf becomes NaN by inf - inf. The padding past
// a row is -inf, and its exponential is 0.
#include <cmath>

#include "cuda/kernel.h"
#include "cuda/row_reduce.h"

namespace chainrule::cuda {
namespace {

template <class T>
struct Softmax {
  const T* x;
  T* y;

  template <class Row>
  __device__ void operator()(Row& row) const {
    const T* const from = x + row.index * row.columns;
    T* const to = y + row.index * row.columns;
    const auto values = row.values(T(-INFINITY), [=](int64_t i) { return from[i]; });
    T top = T(-INFINITY);
    values.fold([&](T v) { top = fmax(top, v); });
    top = row.group.maximum(top);
    const auto powers = values.map([=](T v) { return exp(v - top); });
    const T total = powers.template sum<T>([](T sum, T v, int64_t) { return sum + v; });
    const T inverse = T(1) / row.group.sum(total);
    powers.for_each([=](T v, int64_t i) { to[i] = v * inverse; });
  }
};

// dx_i = y_i (dy_i - Σ_k dy_k y_k): eq. (56) and (57) combined.
template <class T>
struct SoftmaxBackward {
  const T* dy;
  const T* y;
  T* dx;

  struct Both {
    T g, p;
  };

  template <class Row>
  __device__ void operator()(Row& row) const {
    const T* const g = dy + row.index * row.columns;
    const T* const p = y + row.index * row.columns;
    T* const to = dx + row.index * row.columns;
    const auto values = row.values(Both{T(0), T(0)}, [=](int64_t i) { return Both{g[i], p[i]}; });
    const T inner = row.group.sum(
        values.template sum<T>([](T sum, Both v, int64_t) { return fma(v.g, v.p, sum); }));
    values.for_each([=](Both v, int64_t i) { to[i] = v.p * (v.g - inner); });
  }
};

template <class T>
struct LogSoftmax {
  const T* x;
  T* y;

  template <class Row>
  __device__ void operator()(Row& row) const {
    const T* const from = x + row.index * row.columns;
    T* const to = y + row.index * row.columns;
    const auto values = row.values(T(-INFINITY), [=](int64_t i) { return from[i]; });
    T top = T(-INFINITY);
    values.fold([&](T v) { top = fmax(top, v); });
    top = row.group.maximum(top);
    const T total = values.template sum<T>([=](T sum, T v, int64_t) { return sum + exp(v - top); });
    const T shift = log(row.group.sum(total));
    values.for_each([=](T v, int64_t i) { to[i] = v - top - shift; });
  }
};

}  // namespace

template <class T>
void softmax(const T* x, T* y, const Rows& s) {
  for_each_row<T>(s, Softmax<T>{x, y});
}

template <class T>
void softmax_backward(const T* dy, const T* y, T* dx, const Rows& s) {
  for_each_row<T>(s, SoftmaxBackward<T>{dy, y, dx});
}

template <class T>
void log_softmax(const T* x, T* y, const Rows& s) {
  for_each_row<T>(s, LogSoftmax<T>{x, y});
}

CR_INSTANTIATE(softmax);
CR_INSTANTIATE(softmax_backward);
CR_INSTANTIATE(log_softmax);

}  // namespace chainrule::cuda
