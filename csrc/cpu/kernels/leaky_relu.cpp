// Leaky ReLU, in the text after eq. (13): x above 0, else slope · x.
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

template <class T>
void leaky_relu(const T* x, T* y, double slope, int64_t n) {
  using V = Vec<T>;
  const V negative_slope = V::set(static_cast<T>(slope));
  map(n, y, [=](V v) { return select(v > V::zero(), v, negative_slope * v); }, x);
}

template <class T>
void leaky_relu_backward(const T* dy, const T* x, T* dx, double slope, int64_t n) {
  using V = Vec<T>;
  const V negative_slope = V::set(static_cast<T>(slope));
  map(n, dx, [=](V g, V v) { return select(v > V::zero(), g, negative_slope * g); }, dy, x);
}

CR_INSTANTIATE(leaky_relu);
CR_INSTANTIATE(leaky_relu_backward);

}  // namespace chainrule::CR_ISA
