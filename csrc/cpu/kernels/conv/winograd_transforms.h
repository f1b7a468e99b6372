// The transforms of Winograd's F(4, 3), along one axis: four outputs of three taps over six pixels
// from six products.
//
//   y = Aᵀ [(G g) ⊙ (Bᵀ d)],   dg = Gᵀ [(A dy) ⊙ (Bᵀ d)]
//
// Pixels, taps and outputs are the coefficients of polynomials that meet at 0, ±a, ±b and infinity
// (Toom and Cook). With a = 5/8 and b = 3/2 the matrices A and B are exact, and errors are half of
// those with 1 and 2, on normal data; of the multiples of an eighth no pair does better.
#pragma once

#include "cpu/simd/vec.h"

namespace chainrule::CR_ISA {

template <class T>
struct Transforms {
  using V = Vec<T>;
  static constexpr int taps = 3, outputs = 4, pixels = 6;

  // Bᵀ
  static CR_INLINE void of_pixels(const V* d, V* u) {
    u[0] = fma(V::set(aa * bb), d[0], fma(V::set(-(aa + bb)), d[2], d[4]));
    const V even_a = fma(V::set(-bb), d[2], d[4]), odd_a = fma(V::set(-bb), d[1], d[3]);
    u[1] = fma(V::set(a), odd_a, even_a);
    u[2] = fma(V::set(-a), odd_a, even_a);
    const V even_b = fma(V::set(-aa), d[2], d[4]), odd_b = fma(V::set(-aa), d[1], d[3]);
    u[3] = fma(V::set(b), odd_b, even_b);
    u[4] = fma(V::set(-b), odd_b, even_b);
    u[5] = fma(V::set(aa * bb), d[1], fma(V::set(-(aa + bb)), d[3], d[5]));
  }

  // G
  static CR_INLINE void of_taps(const V* g, V* u) {
    u[0] = V::set(at_zero) * g[0];
    const V even_a = V::set(at_a) * fma(V::set(aa), g[2], g[0]), odd_a = V::set(at_a * a) * g[1];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    const V even_b = V::set(at_b) * fma(V::set(bb), g[2], g[0]), odd_b = V::set(at_b * b) * g[1];
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
  }

  // Aᵀ
  static CR_INLINE void of_products(const V* m, V* y) {
    const V even_a = m[1] + m[2], odd_a = m[1] - m[2];
    const V even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + (even_a + even_b);
    y[1] = fma(V::set(b), odd_b, V::set(a) * odd_a);
    y[2] = fma(V::set(bb), even_b, V::set(aa) * even_a);
    y[3] = fma(V::set(bb * b), odd_b, fma(V::set(aa * a), odd_a, m[5]));
  }

  // A, of the gradient of the outputs
  static CR_INLINE void of_gradient(const V* y, V* u) {
    u[0] = y[0];
    const V even_a = fma(V::set(aa), y[2], y[0]);
    const V odd_a = fma(V::set(aa * a), y[3], V::set(a) * y[1]);
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    const V even_b = fma(V::set(bb), y[2], y[0]);
    const V odd_b = fma(V::set(bb * b), y[3], V::set(b) * y[1]);
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = y[3];
  }

  // Gᵀ, to the gradient of the taps
  static CR_INLINE void of_sums(const V* u, V* g) {
    const V even_a = V::set(at_a) * (u[1] + u[2]), odd_a = V::set(at_a * a) * (u[1] - u[2]);
    const V even_b = V::set(at_b) * (u[3] + u[4]), odd_b = V::set(at_b * b) * (u[3] - u[4]);
    g[0] = fma(V::set(at_zero), u[0], even_a + even_b);
    g[1] = odd_a + odd_b;
    g[2] = fma(V::set(aa), even_a, fma(V::set(bb), even_b, u[5]));
  }

 private:
  static constexpr T a = T(0.625), b = T(1.5), aa = a * a, bb = b * b;
  static constexpr T at_zero = 1 / (aa * bb), at_a = 1 / (2 * aa * (aa - bb)),
                     at_b = 1 / (2 * bb * (bb - aa));
};

}  // namespace chainrule::CR_ISA
