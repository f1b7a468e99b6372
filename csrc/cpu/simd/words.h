// Vectors of 32-bit words, for random numbers. They are the compiler's vectors. Only the 64-bit
// product of two words uses intrinsics, because the compiler would multiply 64-bit operands.
#pragma once

#include "cpu/simd/vec.h"

#if defined(CR_ISA_neon)
#include <arm_neon.h>
#endif

namespace chainrule::CR_ISA {

using Words = Native<uint32_t>::type;
constexpr int words_width = Native<uint32_t>::width;

CR_INLINE Words load_words(const uint32_t* p) {
  Words w;
  __builtin_memcpy(&w, p, sizeof w);
  return w;
}
CR_INLINE void store_words(uint32_t* p, Words w) { __builtin_memcpy(p, &w, sizeof w); }

struct WideProduct {
  Words high, low;
};

#if defined(CR_ISA_sse2) || defined(CR_ISA_avx2) || defined(CR_ISA_avx512)

using Pairs = Native<uint64_t>::type;

// The 64-bit products of the lower words of each pair.
CR_INLINE Pairs multiply_lower(Pairs a, Pairs b) {
#if defined(CR_ISA_avx512)
  // The masked form, because GCC 12 warns about its own unmasked one.
  return (Pairs)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(CR_ISA_avx2)
  return (Pairs)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (Pairs)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
}

CR_INLINE WideProduct multiply_wide(Words a, uint32_t b) {
  const Pairs x = (Pairs)a, y = Pairs{} + b, lower_word = Pairs{} + 0xFFFFFFFF;
  const Pairs even = multiply_lower(x, y), odd = multiply_lower(x >> 32, y);
  return {(Words)((even >> 32) | (odd & ~lower_word)), (Words)((even & lower_word) | (odd << 32))};
}

#elif defined(CR_ISA_neon)

CR_INLINE WideProduct multiply_wide(Words a, uint32_t b) {
  const uint32x4_t x = (uint32x4_t)a;
  const uint32x4_t first = vreinterpretq_u32_u64(vmull_n_u32(vget_low_u32(x), b));
  const uint32x4_t second = vreinterpretq_u32_u64(vmull_n_u32(vget_high_u32(x), b));
  return {(Words)vuzp2q_u32(first, second), (Words)vuzp1q_u32(first, second)};
}

#else

CR_INLINE WideProduct multiply_wide(Words a, uint32_t b) {
  const uint64_t product = uint64_t{a} * b;
  return {static_cast<uint32_t>(product >> 32), static_cast<uint32_t>(product)};
}

#endif

}  // namespace chainrule::CR_ISA
