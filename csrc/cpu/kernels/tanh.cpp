// The hyperbolic tangent, and its backward pass from the output.
#include "cpu/kernels/kernel.h"
#include "cpu/simd/math.h"

namespace chainrule::CR_ISA {

// tanh |x| = -m / (2 + m) with m = e^(-2|x|) - 1. The relative error is small near 0 too.
template <class T>
void tanh(const T* x, T* y, int64_t n) {
  using V = Vec<T>;
  map<3>(
      n, y,
      [](V v) {
        const V m = expm1(abs(v) * V::set(T(-2)));
        return copy_sign(m / (V::set(T(2)) + m), v);
      },
      x);
}

// 1 - y² as a product, without cancellation where y is near 1.
template <class T>
void tanh_backward(const T* dy, const T* y, T* dx, int64_t n) {
  using V = Vec<T>;
  const V one = V::set(T(1));
  map(n, dx, [=](V g, V v) { return g * ((one - v) * (one + v)); }, dy, y);
}

CR_INSTANTIATE(tanh);
CR_INSTANTIATE(tanh_backward);

}  // namespace chainrule::CR_ISA
