// GELU, x Φ(x), and its backward pass. csrc/cpu/kernels/gelu.cpp has the same formulas.
#include <cmath>

#include "core/normal_tail.h"
#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

// Horner's scheme from coefficient `i`. A constant per instance needs no array in GPU memory.
template <class T, int i = 0>
__device__ __forceinline__ T tail_polynomial(T q) {
  constexpr T coefficient = NormalTail<T>::coefficients[i];
  if constexpr (i == NormalTail<T>::degree) return coefficient;
  else return tail_polynomial<T, i + 1>(q) * q + coefficient;
}

// The number without its low bits, so that the square is exact.
__device__ __forceinline__ float high_part(float a) {
  uint32_t bits;
  memcpy(&bits, &a, sizeof bits);
  bits &= 0xFFFFF000u;
  memcpy(&a, &bits, sizeof bits);
  return a;
}
__device__ __forceinline__ double high_part(double a) {
  uint64_t bits;
  memcpy(&bits, &a, sizeof bits);
  bits &= 0xFFFFFFFFF8000000u;
  memcpy(&a, &bits, sizeof bits);
  return a;
}

// Factors at a = min(|x|, largest). `root` is e^(-a²/4), which is never subnormal.
template <class T>
struct NormalFactors {
  T a, shifted, polynomial, root, rest;

  __device__ __forceinline__ explicit NormalFactors(T x) {
    using C = NormalTail<T>;
    // Comparisons with NaN are false, so NaN is kept.
    a = ::fabs(x) > C::largest ? C::largest : ::fabs(x);
    const T high = high_part(a);
    root = ::exp(high * high * T(-0.25));
    shifted = a + C::shift;
    rest = ::exp((a - high) * (a + high) * T(-0.5)) / shifted;
    polynomial = tail_polynomial((a - C::shift) / shifted);
  }
};

struct GeluFunctor {
  template <class T>
  __device__ T operator()(T v) const {
    const NormalFactors<T> f(v);
    const T tail = f.polynomial * f.rest;
    const T x = v < -NormalTail<T>::largest ? -NormalTail<T>::largest : v;
    return x > T(0) ? x * (T(1) - tail * f.root * f.root) : x * tail * f.root * f.root;
  }
  template <class T>
  __device__ T operator()(T gradient, T v) const {
    const NormalFactors<T> f(v);
    const T factor = f.polynomial - NormalTail<T>::density_at_zero * f.a * f.shifted;
    const T s = factor * f.rest * f.root * f.root;
    return gradient * (v > T(0) ? T(1) - s : s);
  }
};

}  // namespace

template <class T>
void gelu(const T* x, T* y, int64_t n) {
  map(n, y, GeluFunctor(), x);
}

template <class T>
void gelu_backward(const T* dy, const T* x, T* dx, int64_t n) {
  map(n, dx, GeluFunctor(), dy, x);
}

CR_INSTANTIATE(gelu);
CR_INSTANTIATE(gelu_backward);

}  // namespace chainrule::cuda
