// Vec<T>: one register of float or double, for every instruction set from one source.
//
// Arithmetic, comparison and selection use the compiler's vector extension. GCC and Clang compile
// it to the instructions that intrinsics would name. a * b + c is contracted to a fused
// multiply-add if the hardware has one (-ffp-contract=fast). The extension has no masks, so partial
// loads and stores use intrinsics.
//
// All names are in the namespace of the instruction set. If two instruction sets shared an inline
// function, it would be compiled for both, and the linker would keep one of them.
#pragma once

#include <cstdint>

#include "cpu/simd/isa.h"

#if defined(CR_ISA_avx2) || defined(CR_ISA_avx512)
#include <immintrin.h>
#elif defined(CR_ISA_sse2)
#include <emmintrin.h>
#elif defined(CR_ISA_neon)
#include <arm_neon.h>
#endif

namespace chainrule::CR_ISA {

template <class T>
struct Integer;
template <>
struct Integer<float> {
  using type = int32_t;
};
template <>
struct Integer<double> {
  using type = int64_t;
};

#if CR_VECTOR_BYTES == 0
template <class T>
struct Native {
  using type = T;
  static constexpr int width = 1;
};
#else
template <class T>
struct Native {
  typedef T type __attribute__((vector_size(CR_VECTOR_BYTES)));
  static constexpr int width = CR_VECTOR_BYTES / static_cast<int>(sizeof(T));
};
#endif

template <class T>
struct Vec {
  using Register = typename Native<T>::type;
  using Mask = decltype(Register{} < Register{});
  using Bits = typename Native<typename Integer<T>::type>::type;
  static constexpr int width = Native<T>::width;

  Register v;

  static CR_INLINE Vec zero() { return {Register{}}; }
  // A scalar operand is broadcast, and x - 0 is x for every x. This compiles to one instruction. A
  // loop over the lanes compiles to one masked broadcast per lane (GCC 12).
  static CR_INLINE Vec set(T x) { return {x - Register{}}; }
  static CR_INLINE Vec load(const T* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  static Vec load(const T* p, int64_t n, T fill);
  CR_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof v); }
  void store(T* p, int64_t n) const;

  friend CR_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend CR_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend CR_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend CR_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  friend CR_INLINE Mask operator>(Vec a, Vec b) { return a.v > b.v; }
  friend CR_INLINE Mask operator<=(Vec a, Vec b) { return a.v <= b.v; }
  friend CR_INLINE Mask operator==(Vec a, Vec b) { return a.v == b.v; }
};

template <class T>
CR_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return {a.v * b.v + c.v};
}

template <class T>
CR_INLINE Vec<T> select(typename Vec<T>::Mask mask, Vec<T> yes, Vec<T> no) {
  return {mask ? yes.v : no.v};
}

// Element-wise. NaN in b is kept, NaN in a is not.
template <class T>
CR_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
  return {a.v > b.v ? a.v : b.v};
}

template <class T>
CR_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
  return {a.v < b.v ? a.v : b.v};
}

// Correctly rounded, as IEEE 754 requires.
#if defined(CR_ISA_avx512)  // with a mask, because GCC 12 warns of the other form's undefined value
CR_INLINE Vec<float> sqrt(Vec<float> a) {
  return {(Vec<float>::Register)_mm512_maskz_sqrt_ps(0xffff, (__m512)a.v)};
}
CR_INLINE Vec<double> sqrt(Vec<double> a) {
  return {(Vec<double>::Register)_mm512_maskz_sqrt_pd(0xff, (__m512d)a.v)};
}
#elif defined(CR_ISA_avx2)
CR_INLINE Vec<float> sqrt(Vec<float> a) {
  return {(Vec<float>::Register)_mm256_sqrt_ps((__m256)a.v)};
}
CR_INLINE Vec<double> sqrt(Vec<double> a) {
  return {(Vec<double>::Register)_mm256_sqrt_pd((__m256d)a.v)};
}
#elif defined(CR_ISA_sse2)
CR_INLINE Vec<float> sqrt(Vec<float> a) { return {(Vec<float>::Register)_mm_sqrt_ps((__m128)a.v)}; }
CR_INLINE Vec<double> sqrt(Vec<double> a) {
  return {(Vec<double>::Register)_mm_sqrt_pd((__m128d)a.v)};
}
#elif defined(CR_ISA_neon)
CR_INLINE Vec<float> sqrt(Vec<float> a) {
  return {(Vec<float>::Register)vsqrtq_f32((float32x4_t)a.v)};
}
CR_INLINE Vec<double> sqrt(Vec<double> a) {
  return {(Vec<double>::Register)vsqrtq_f64((float64x2_t)a.v)};
}
#else
CR_INLINE Vec<float> sqrt(Vec<float> a) { return {__builtin_sqrtf(a.v)}; }
CR_INLINE Vec<double> sqrt(Vec<double> a) { return {__builtin_sqrt(a.v)}; }
#endif

template <class T>
CR_INLINE typename Vec<T>::Bits bits(Vec<T> a) {
  typename Vec<T>::Bits r;
  __builtin_memcpy(&r, &a.v, sizeof r);
  return r;
}

template <class T>
CR_INLINE Vec<T> from_bits(typename Vec<T>::Bits b) {
  Vec<T> r;
  __builtin_memcpy(&r.v, &b, sizeof b);
  return r;
}

template <class T>
constexpr typename Integer<T>::type sign_bit = typename Integer<T>::type{1} << (8 * sizeof(T) - 1);

template <class T>
CR_INLINE Vec<T> abs(Vec<T> a) {
  return from_bits<T>(bits(a) & ~sign_bit<T>);
}

// Returns |a| with the sign of b.
template <class T>
CR_INLINE Vec<T> copy_sign(Vec<T> a, Vec<T> b) {
  return from_bits<T>(bits(abs(a)) | (bits(b) & sign_bit<T>));
}

// Returns the pairwise sum of the lanes. The order is fixed, so the bits are reproducible.
template <class T>
CR_INLINE T reduce_sum(Vec<T> a) {
  T lane[Vec<T>::width];
  a.store(lane);
  for (int half = Vec<T>::width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

// Returns the largest lane, or NaN if a lane is NaN. Comparisons with NaN are false, so a != a is
// tested too.
template <class T>
CR_INLINE T reduce_max(Vec<T> a) {
  T lane[Vec<T>::width];
  a.store(lane);
  T best = lane[0];
  for (int i = 1; i < Vec<T>::width; ++i) {
    if (lane[i] > best || lane[i] != lane[i]) best = lane[i];
  }
  return best;
}

#if defined(CR_ISA_avx512)

template <>
inline Vec<float> Vec<float>::load(const float* p, int64_t n, float fill) {
  const __mmask16 mask = static_cast<__mmask16>((1u << n) - 1);
  return {(Register)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, p)};
}
template <>
inline void Vec<float>::store(float* p, int64_t n) const {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
}
template <>
inline Vec<double> Vec<double>::load(const double* p, int64_t n, double fill) {
  const __mmask8 mask = static_cast<__mmask8>((1u << n) - 1);
  return {(Register)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), mask, p)};
}
template <>
inline void Vec<double>::store(double* p, int64_t n) const {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
}

#elif defined(CR_ISA_avx2)

CR_INLINE __m256i lanes_below(int64_t n, float) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
CR_INLINE __m256i lanes_below(int64_t n, double) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

template <>
inline Vec<float> Vec<float>::load(const float* p, int64_t n, float fill) {
  const __m256i mask = lanes_below(n, 0.0f);
  return {(Register)_mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, mask),
                                     _mm256_castsi256_ps(mask))};
}
template <>
inline void Vec<float>::store(float* p, int64_t n) const {
  _mm256_maskstore_ps(p, lanes_below(n, 0.0f), (__m256)v);
}
template <>
inline Vec<double> Vec<double>::load(const double* p, int64_t n, double fill) {
  const __m256i mask = lanes_below(n, 0.0);
  return {(Register)_mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(p, mask),
                                     _mm256_castsi256_pd(mask))};
}
template <>
inline void Vec<double>::store(double* p, int64_t n) const {
  _mm256_maskstore_pd(p, lanes_below(n, 0.0), (__m256d)v);
}

#else

template <class T>
inline Vec<T> Vec<T>::load(const T* p, int64_t n, T fill) {
  T lane[width];
  for (int i = 0; i < width; ++i) lane[i] = i < n ? p[i] : fill;
  return load(lane);
}
template <class T>
inline void Vec<T>::store(T* p, int64_t n) const {
  T lane[width];
  store(lane);
  const int count = n < width ? static_cast<int>(n) : width;
  for (int i = 0; i < count; ++i) p[i] = lane[i];
}

#endif

// Transposes a square of vectors: lane j of row i becomes lane i of row j. Each pass exchanges
// halves at one distance.
template <class T>
CR_INLINE void transpose([[maybe_unused]] Vec<T>* rows) {
#if CR_VECTOR_BYTES != 0
  using I = typename Integer<T>::type;
  constexpr int width = Vec<T>::width;
#pragma GCC unroll 4
  for (int distance = 1; distance < width; distance *= 2) {
    I low[width], high[width];
    for (int i = 0; i < width; ++i) {
      low[i] = static_cast<I>(i & distance ? width + i - distance : i);
      high[i] = static_cast<I>(i & distance ? width + i : i + distance);
    }
    typename Vec<T>::Bits low_order, high_order;
    __builtin_memcpy(&low_order, low, sizeof low_order);
    __builtin_memcpy(&high_order, high, sizeof high_order);
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) {
      if (i & distance) continue;
      const auto a = rows[i].v, b = rows[i + distance].v;
      rows[i].v = __builtin_shuffle(a, b, low_order);
      rows[i + distance].v = __builtin_shuffle(a, b, high_order);
    }
  }
#endif
}

// Lane i of the result is lane order[i] of a.
template <class T>
CR_INLINE Vec<T> permute(Vec<T> a, [[maybe_unused]] typename Vec<T>::Bits order) {
#if CR_VECTOR_BYTES == 0
  return a;
#else
  return {__builtin_shuffle(a.v, order)};
#endif
}

// Returns a, and forces the compiler to load it once. Without this it reads a from memory for every
// use, which is slower if load ports are the bottleneck.
template <class T>
CR_INLINE Vec<T> keep_in_register(Vec<T> a) {
#if defined(__x86_64__) && CR_VECTOR_BYTES != 0
  asm("" : "+v"(a.v));
#endif
  return a;
}

// Returns the mask as an integer: bit i is set if lane i is set.
template <class T>
CR_INLINE uint64_t mask_bits(typename Vec<T>::Mask mask) {
#if defined(CR_ISA_avx512)
  if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)mask);
  else return _mm512_movepi64_mask((__m512i)mask);
#elif defined(CR_ISA_avx2)
  if constexpr (sizeof(T) == 4) return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
  else return static_cast<uint32_t>(_mm256_movemask_pd((__m256d)mask));
#elif defined(CR_ISA_sse2)
  if constexpr (sizeof(T) == 4) return static_cast<uint32_t>(_mm_movemask_ps((__m128)mask));
  else return static_cast<uint32_t>(_mm_movemask_pd((__m128d)mask));
#elif CR_VECTOR_BYTES == 0
  return mask ? 1 : 0;
#else
  typename Integer<T>::type lane[Vec<T>::width];
  __builtin_memcpy(lane, &mask, sizeof lane);
  uint64_t result = 0;
  for (int i = 0; i < Vec<T>::width; ++i) result |= static_cast<uint64_t>(lane[i] & 1) << i;
  return result;
#endif
}

}  // namespace chainrule::CR_ISA
