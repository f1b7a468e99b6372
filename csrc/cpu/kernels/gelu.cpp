// GELU, x Φ(x), where Φ is the standard normal distribution function (Hendrycks and Gimpel,
// "Gaussian Error Linear Units (GELUs)", 2016), and its backward pass.
#include "cpu/kernels/kernel.h"
#include "cpu/simd/normal.h"

namespace chainrule::CR_ISA {

// Φ(x) is 1 - Φ(-x) above 0. Below, the tail itself is a factor, so no digits cancel. x is limited
// to numbers whose result is not 0, so that -inf gives -0, the limit.
template <class T>
void gelu(const T* x, T* y, int64_t n) {
  using V = Vec<T>;
  map<6>(
      n, y,
      [](V v) {
        const NormalFactors<T> f = normal_factors(v);
        const V tail = f.polynomial * f.power_by_shifted;
        const V above = V::set(T(1)) - tail * f.scale.half * f.scale.rest;
        v = max(V::set(-NormalTail<T>::largest), v);  // NaN is kept
        return select(v > V::zero(), v * above, v * tail * f.scale.half * f.scale.rest);
      },
      x);
}

// The derivative is Φ(x) + x φ(x). At -a it is s = Φ(-a) - a φ(a), and at a it is 1 - s.
template <class T>
void gelu_backward(const T* dy, const T* x, T* dx, int64_t n) {
  using V = Vec<T>;
  map<6>(
      n, dx,
      [](V g, V v) {
        const NormalFactors<T> f = normal_factors(v);
        const V density = f.a * V::set(-NormalTail<T>::density_at_zero);
        const V factor = fma(density, f.shifted, f.polynomial);
        const V s = factor * f.power_by_shifted * f.scale.half * f.scale.rest;
        return g * select(v > V::zero(), V::set(T(1)) - s, s);
      },
      dy, x);
}

CR_INSTANTIATE(gelu);
CR_INSTANTIATE(gelu_backward);

}  // namespace chainrule::CR_ISA
