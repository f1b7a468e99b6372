// 16-byte vector accesses, and asynchronous copies from global to shared memory (cp.async). In the
// CPU emulation (tests/simt) the copies are synchronous.
#pragma once

#include <cstdint>

#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

// Elements per 16-byte vector: the widest single load, store or asynchronous copy. Vectors are
// aligned to 16 bytes.
template <class T>
constexpr int vector_width = 16 / static_cast<int>(sizeof(T));

template <class T>
struct alignas(16) AlignedVector {
  T values[vector_width<T>];
};

// Loads four aligned elements: one vector of float, two of double.
template <class T>
__device__ __forceinline__ void load_vec4(const T* from, T* to) {
#pragma unroll
  for (int i = 0; i < 4; i += vector_width<T>) {
    const AlignedVector<T> vector = *reinterpret_cast<const AlignedVector<T>*>(from + i);
#pragma unroll
    for (int j = 0; j < vector_width<T>; ++j) to[i + j] = vector.values[j];
  }
}

// Stores four aligned elements to global memory. Inline PTX, because nvcc split some of these
// stores into one per element. Those were stores beside a branch that also stored.
template <class T>
__device__ __forceinline__ void store_vec4(const T* from, T* to) {
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
  for (int i = 0; i < 4; i += vector_width<T>) {
    AlignedVector<T> vector;
    for (int j = 0; j < vector_width<T>; ++j) vector.values[j] = from[i + j];
    *reinterpret_cast<AlignedVector<T>*>(to + i) = vector;
  }
#endif
}

// If `valid` is false, writes zeros and does not read `from`.
#ifdef __CUDACC__
template <int bytes>
__device__ __forceinline__ void copy_bytes_async(void* to, const void* from, bool valid) {
  const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to));
  const int size = valid ? bytes : 0;
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(size)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(target), "l"(from),
                 "r"(size), "n"(bytes)
                 : "memory");
  }
}

// Waits until this thread's copies have arrived. A barrier must follow before other threads read
// them.
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
}
#else
template <int bytes>
void copy_bytes_async(void* to, const void* from, bool valid) {
  struct alignas(bytes) Bytes {
    char values[bytes];
  };
  *static_cast<Bytes*>(to) = valid ? *static_cast<const Bytes*>(from) : Bytes{};
}

inline void wait_for_copies() {}
#endif

template <class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, bool valid) {
  copy_bytes_async<static_cast<int>(sizeof(T))>(to, from, valid);
}

// Copies one vector. Both addresses must be multiples of 16 bytes.
template <class T>
__device__ __forceinline__ void copy_vector_async(T* to, const T* from, bool valid) {
  copy_bytes_async<16>(to, from, valid);
}

inline bool is_aligned16(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

}  // namespace chainrule::cuda
