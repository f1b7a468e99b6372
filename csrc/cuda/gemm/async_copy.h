// Copies from global to shared memory that go on while the thread computes (cp.async). Over the
// shim they are done at once.
#pragma once

#include <cstdint>

#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

// As many elements as one instruction moves at most, and their alignment.
template <class T>
constexpr int piece_size = 16 / static_cast<int>(sizeof(T));

template <class T>
struct alignas(16) Piece {
  T at[piece_size<T>];
};

// A square's side: what a thread loads and stores at a time.
template <class T>
__device__ __forceinline__ void load_four(const T* from, T* to) {
#pragma unroll
  for (int i = 0; i < 4; i += piece_size<T>) {
    const Piece<T> piece = *reinterpret_cast<const Piece<T>*>(from + i);
#pragma unroll
    for (int j = 0; j < piece_size<T>; ++j) to[i + j] = piece.at[j];
  }
}

// To global memory. Left to the compiler, some of these stores became one an element: those with
// such stores in a branch beside them.
template <class T>
__device__ __forceinline__ void store_four(const T* from, T* to) {
#ifdef __CUDACC__
  if constexpr (sizeof(T) == 4) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(from[0]), "f"(from[1]),
                 "f"(from[2]), "f"(from[3])
                 : "memory");
  } else {
    asm volatile(
        "st.global.v2.f64 [%0], {%1, %2};\nst.global.v2.f64 [%0 + 16], {%3, %4};" ::"l"(to),
        "d"(from[0]), "d"(from[1]), "d"(from[2]), "d"(from[3])
        : "memory");
  }
#else
  for (int i = 0; i < 4; i += piece_size<T>) {
    Piece<T> piece;
    for (int j = 0; j < piece_size<T>; ++j) piece.at[j] = from[i + j];
    *reinterpret_cast<Piece<T>*>(to + i) = piece;
  }
#endif
}

// `there` false: zeros, and `from` is not read.
#ifdef __CUDACC__
template <int bytes>
__device__ __forceinline__ void copy_bytes_async(void* to, const void* from, bool there) {
  const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int size = there ? bytes : 0;
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(size)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(target), "l"(from),
                 "r"(size), "n"(bytes)
                 : "memory");
  }
}

// This thread's copies have arrived; a barrier tells the others.
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}
#else
template <int bytes>
void copy_bytes_async(void* to, const void* from, bool there) {
  struct alignas(bytes) Bytes {
    char at[bytes];
  };
  *static_cast<Bytes*>(to) = there ? *static_cast<const Bytes*>(from) : Bytes{};
}

inline void wait_for_copies() {}
#endif

template <class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, bool there) {
  copy_bytes_async<static_cast<int>(sizeof(T))>(to, from, there);
}

// A whole piece; both addresses are multiples of 16 bytes.
template <class T>
__device__ __forceinline__ void copy_piece_async(T* to, const T* from, bool there) {
  copy_bytes_async<16>(to, from, there);
}

inline bool piecewise(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

}  // namespace chainrule::cuda
