// What each instruction set is: the width of a vector, how many registers there are, and proof
// that the compiler was told to use it. An instruction set is a paragraph here and a line in
// CMakeLists.txt and in cpu/dispatch.cpp.
#pragma once

#if defined(CR_ISA_scalar)

#define CR_VECTOR_BYTES 0  // a vector is one number
#define CR_REGISTERS 16

#elif defined(CR_ISA_sse2)

#if !defined(__SSE2__) || defined(__SSE3__)
#error "sse2 is the x86-64 baseline and nothing more"
#endif
#define CR_VECTOR_BYTES 16
#define CR_REGISTERS 16

#elif defined(CR_ISA_avx2)

#if !defined(__AVX2__) || !defined(__FMA__) || defined(__AVX512F__)
#error "avx2 wants -mavx2 -mfma"
#endif
#define CR_VECTOR_BYTES 32
#define CR_REGISTERS 16

#elif defined(CR_ISA_avx512)

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || \
    !defined(__AVX512VL__) || !defined(__FMA__)
#error "avx512 wants -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma"
#endif
#define CR_VECTOR_BYTES 64
#define CR_REGISTERS 32

#elif defined(CR_ISA_neon)

#if !defined(__ARM_NEON) || !defined(__aarch64__)
#error "neon is the AArch64 baseline"
#endif
#define CR_VECTOR_BYTES 16
#define CR_REGISTERS 32

#else
#error "one of CR_ISA_scalar, _sse2, _avx2, _avx512, _neon must be defined"
#endif

#define CR_INLINE inline __attribute__((always_inline))
