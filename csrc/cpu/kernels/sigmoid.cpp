// The logistic sigmoid, 1 / (1 + e^-x), and its backward pass from the output.
#include "cpu/kernels/kernel.h"
#include "cpu/simd/math.h"

namespace chainrule::CR_ISA {

// With e = e^-|x| nothing overflows, and the relative error is small at both ends.
template <class T>
void sigmoid(const T* x, T* y, int64_t n) {
  using V = Vec<T>;
  map<3>(
      n, y,
      [](V v) {
        const V one = V::set(T(1)), e = exp(V::zero() - abs(v));
        return select(v > V::zero(), one, e) / (one + e);
      },
      x);
}

template <class T>
void sigmoid_backward(const T* dy, const T* y, T* dx, int64_t n) {
  using V = Vec<T>;
  map(n, dx, [](V g, V v) { return g * (v * (V::set(T(1)) - v)); }, dy, y);
}

CR_INSTANTIATE(sigmoid);
CR_INSTANTIATE(sigmoid_backward);

}  // namespace chainrule::CR_ISA
