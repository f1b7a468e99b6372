// The instruction sets: the width of a vector, the number of registers, and a check of the
// compiler's flags. To add one, add a paragraph here, a line in CMakeLists.txt and one in
// cpu/dispatch.cpp.
#pragma once

#if defined(CR_ISA_scalar)

#define CR_VECTOR_BYTES 0  // a vector has one lane
#define CR_REGISTERS 16

#elif defined(CR_ISA_sse2)

#if !defined(__SSE2__) || defined(__SSE3__)
#error "sse2 must be compiled with the x86-64 baseline flags only"
#endif
#define CR_VECTOR_BYTES 16
#define CR_REGISTERS 16

#elif defined(CR_ISA_avx2)

#if !defined(__AVX2__) || !defined(__FMA__) || defined(__AVX512F__)
#error "avx2 must be compiled with -mavx2 -mfma"
#endif
#define CR_VECTOR_BYTES 32
#define CR_REGISTERS 16

#elif defined(CR_ISA_avx512)

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || \
    !defined(__AVX512VL__) || !defined(__FMA__)
#error "avx512 must be compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma"
#endif
#define CR_VECTOR_BYTES 64
#define CR_REGISTERS 32

#elif defined(CR_ISA_neon)

#if !defined(__ARM_NEON) || !defined(__aarch64__)
#error "neon must be compiled for AArch64"
#endif
#define CR_VECTOR_BYTES 16
#define CR_REGISTERS 32

#else
#error "one of CR_ISA_scalar, _sse2, _avx2, _avx512, _neon must be defined"
#endif

#define CR_INLINE inline __attribute__((always_inline))
