// exp, expm1 and log1p of a vector, for float and double, and log of a scalar.
#pragma once

#include "cpu/simd/vec.h"

namespace chainrule::CR_ISA {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  // Outside this range the result is exactly 0 or infinity.
  static constexpr float lowest = -150.0f, highest = 128.0f;
  // Adding 1.5 · 2^23 leaves the rounded integer in the low bits of the sum.
  static constexpr float shifter = 12582912.0f;
  // ln 2 in two parts. The first part has few bits, so its product with the exponent is exact.
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr int degree = 7, mantissa_bits = 23, bias = 127;
};

template <>
struct ExpConstants<double> {
  static constexpr double lowest = -800.0, highest = 800.0;
  static constexpr double shifter = 6755399441055744.0;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr int degree = 13, mantissa_bits = 52, bias = 1023;
};

template <class T>
struct InverseFactorials {
  T value[16];
  constexpr InverseFactorials() : value{} {
    T factorial = 1;
    for (int i = 0; i < 16; ++i) {
      if (i > 1) factorial *= static_cast<T>(i);
      value[i] = T(1) / factorial;
    }
  }
};

// e^x = 2^k · e^r with |r| <= ln 2 / 2. In this range the error of a Taylor polynomial is below the
// rounding error.
template <class T>
struct ReducedExponent {
  Vec<T> r;
  typename Vec<T>::Bits k;
};

// Reduces the exponent high + low, where low is small against high or 0.
template <class T>
CR_INLINE ReducedExponent<T> reduce_exponent(Vec<T> high, Vec<T> low) {
  using C = ExpConstants<T>;
  using V = Vec<T>;
  const V shifted =
      fma(high + low, V::set(static_cast<T>(1.4426950408889634074)), V::set(C::shifter));
  const V k = shifted - V::set(C::shifter);
  V r = fma(k, V::set(-C::ln2_high), high);
  r = fma(k, V::set(-C::ln2_low), r);
  return {r + low, bits(shifted) - bits(V::set(C::shifter))};
}

// (e^r without its first `first` terms) / r^first.
template <int first, class T>
CR_INLINE Vec<T> exp_series(Vec<T> r) {
  constexpr InverseFactorials<T> inverse;
  constexpr int degree = ExpConstants<T>::degree;
  Vec<T> p = Vec<T>::set(inverse.value[degree]);
#pragma GCC unroll 16
  for (int i = degree - 1; i >= first; --i) p = fma(p, r, Vec<T>::set(inverse.value[i]));
  return p;
}

// 2^k as two factors. After both are applied in turn, subnormal results are correct.
template <class T>
struct PowerOfTwo {
  Vec<T> half, rest;
};

template <class T>
CR_INLINE PowerOfTwo<T> power_of_two(typename Vec<T>::Bits k) {
  using C = ExpConstants<T>;
  const typename Vec<T>::Bits half = k >> 1;
  const typename Vec<T>::Bits rest = k - half;
  return {from_bits<T>((half + C::bias) << C::mantissa_bits),
          from_bits<T>((rest + C::bias) << C::mantissa_bits)};
}

// NaN gives NaN.
template <class T>
CR_INLINE Vec<T> exp(Vec<T> x) {
  using C = ExpConstants<T>;
  using V = Vec<T>;
  x = max(V::set(C::lowest), x);  // with this order of arguments NaN is kept
  x = min(V::set(C::highest), x);
  const ReducedExponent<T> e = reduce_exponent(x, V::zero());
  const PowerOfTwo<T> scale = power_of_two<T>(e.k);
  return exp_series<0>(e.r) * scale.half * scale.rest;
}

// e^x - 1 for x <= 0, without cancellation: 2^k (e^r - 1) + (2^k - 1). NaN gives NaN.
template <class T>
CR_INLINE Vec<T> expm1(Vec<T> x) {
  using V = Vec<T>;
  const ReducedExponent<T> e = reduce_exponent(max(V::set(ExpConstants<T>::lowest), x), V::zero());
  const PowerOfTwo<T> factors = power_of_two<T>(e.k);
  const V scale = factors.half * factors.rest;
  const V fraction = fma(e.r * e.r, exp_series<2>(e.r), e.r);
  return fma(scale, fraction, scale - V::set(T(1)));
}

// log(1 + x) for x in [0, 1] = 2 atanh(s) with s = x / (2 + x) <= 1/3. All terms of the series
// 2 s (1 + s²/3 + s⁴/5 + ...) are positive, so the relative error is a few roundings, also for tiny
// x. The first omitted term is below a rounding error.
template <class T>
CR_INLINE Vec<T> log1p_of_unit(Vec<T> x) {
  using V = Vec<T>;
  constexpr int terms = sizeof(T) == 4 ? 7 : 15;
  const V s = x / (V::set(T(2)) + x);
  const V square = s * s, twice = s + s;
  V p = V::set(T(1) / static_cast<T>(2 * terms + 1));
#pragma GCC unroll 16
  for (int i = terms - 1; i >= 1; --i) p = fma(p, square, V::set(T(1) / static_cast<T>(2 * i + 1)));
  return fma(twice * square, p, twice);
}

CR_INLINE float log(float x) { return __builtin_logf(x); }
CR_INLINE double log(double x) { return __builtin_log(x); }

}  // namespace chainrule::CR_ISA
