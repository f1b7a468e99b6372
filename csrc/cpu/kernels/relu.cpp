// ReLU, eq. (15), and its backward pass, eq. (16). Values <= 0 become 0. NaN is kept, and -0
// becomes 0.
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

template <class T>
void relu(const T* x, T* y, int64_t n) {
  using V = Vec<T>;
  map(n, y, [](V v) { return select(v <= V::zero(), V::zero(), v); }, x);
}

template <class T>
void relu_backward(const T* dy, const T* y, T* dx, int64_t n) {
  using V = Vec<T>;
  map(n, dx, [](V g, V v) { return select(v <= V::zero(), V::zero(), g); }, dy, y);
}

CR_INSTANTIATE(relu);
CR_INSTANTIATE(relu_backward);

}  // namespace chainrule::CR_ISA
