// The tail of the standard normal distribution for a vector.
#pragma once

#include "core/normal_tail.h"
#include "cpu/simd/math.h"

namespace chainrule::CR_ISA {

// Bits of a number that are cleared, so that the square of the rest is exact.
template <class T>
constexpr typename Integer<T>::type low_bits = sizeof(T) == 4 ? (1 << 12) - 1 : (1 << 27) - 1;

// Factors at a = min(|x|, NormalTail<T>::largest), of which products give Φ(-a) and its derivative.
// A product that ends in the two factors of `scale` is rounded once if it is subnormal.
template <class T>
struct NormalFactors {
  Vec<T> a, shifted;        // shifted = a + shift
  Vec<T> polynomial;        // P(q)
  Vec<T> power_by_shifted;  // e^r / (a + shift), where e^(-a²/2) = 2^k e^r
  PowerOfTwo<T> scale;      // 2^k
};

// -a²/2 is computed in two parts, the first of them exact. The error of e^(-a²/2) is therefore a
// few roundings, and does not grow with a. NaN gives NaN.
template <class T>
CR_INLINE NormalFactors<T> normal_factors(Vec<T> x) {
  using C = NormalTail<T>;
  using V = Vec<T>;
  const V a = min(V::set(C::largest), abs(x));  // with this order of arguments NaN is kept
  const V high = from_bits<T>(bits(a) & ~low_bits<T>);
  const V minus_half = V::set(T(-0.5));
  const ReducedExponent<T> e =
      reduce_exponent(high * high * minus_half, (a - high) * (a + high) * minus_half);
  const V shifted = a + V::set(C::shift);
  const V inverse = V::set(T(1)) / shifted;
  const V q = (a - V::set(C::shift)) * inverse;
  V p = V::set(C::coefficients[C::degree]);
#pragma GCC unroll 32
  for (int i = C::degree - 1; i >= 0; --i) p = fma(p, q, V::set(C::coefficients[i]));
  return {a, shifted, p, exp_series<0>(e.r) * inverse, power_of_two<T>(e.k)};
}

}  // namespace chainrule::CR_ISA
