// Elementwise kernels over arrays of one size, four elements at a time (a vec4): one 16-byte vector
// of float, two of double. A thread loads all its vec4s before it stores one, so that the loads
// overlap. Each element is stored by the thread that loaded it, so the result may alias an input.
#pragma once

#include <initializer_list>

#include "cuda/fast_divide.h"
#include "cuda/gemm/async_copy.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {

constexpr int elementwise_threads = 256, vec4s_per_thread = 2;
constexpr int64_t vec4_stride = 4 * elementwise_threads;
constexpr int64_t elements_per_block = vec4_stride * vec4s_per_thread;

// Elements `first` to `first` + 3. If not `full`, only those in [0, n) are accessed, at any
// alignment.
template <bool full>
struct Vec4 {
  int64_t first, n;

  template <class T>
  __device__ __forceinline__ void load(const T* from, T (&to)[4]) const {
    if constexpr (full) {
      load_vec4(from + first, to);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i] = in_range(i) ? from[first + i] : T(0);
    }
  }
  template <class T>
  __device__ __forceinline__ void store(const T (&from)[4], T* to) const {
    if constexpr (full) {
      store_vec4(from, to + first);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (in_range(i)) to[first + i] = from[i];
      }
    }
  }

 private:
  __device__ bool in_range(int i) const { return first + i >= 0 && first + i < n; }
};

// Partition of n elements into vec4s.
struct Vec4Layout {
  int64_t n;
  int lead;      // elements that the first vec4 starts before element 0
  bool aligned;  // vec4s are 16-byte aligned in every array

  // The first vec4 starts at element 0.
  static Vec4Layout starting_at_zero(int64_t n, std::initializer_list<const void*> arrays) {
    bool aligned = true;
    for (const void* array : arrays) aligned = aligned && is_aligned16(array);
    return {n, 0, aligned};
  }

  // The first vec4 starts at the 16-byte boundary at or before element 0. This requires the same
  // misalignment in every array, which is common for parts of longer arrays.
  template <class T>
  static Vec4Layout starting_aligned(int64_t n, std::initializer_list<const T*> arrays) {
    const auto place = [](const T* p) { return reinterpret_cast<uintptr_t>(p) % 16; };
    const uintptr_t first = place(*arrays.begin());
    for (const T* array : arrays) {
      if (place(array) != first) return {n, 0, false};
    }
    return {n, static_cast<int>(first / sizeof(T)), true};
  }
};

template <bool full, class F>
__device__ __forceinline__ void process_vec4s(const F& f, int64_t first, int64_t n) {
  typename F::Registers registers[vec4s_per_thread];
#pragma unroll
  for (int i = 0; i < vec4s_per_thread; ++i) {
    f.load(Vec4<full>{first + i * vec4_stride, n}, registers[i]);
  }
#pragma unroll
  for (int i = 0; i < vec4s_per_thread; ++i) {
    f.store(Vec4<full>{first + i * vec4_stride, n}, registers[i]);
  }
}

template <class F>
__global__ void __launch_bounds__(elementwise_threads) elementwise_kernel(F f, Vec4Layout layout) {
  const int64_t start = int64_t{blockIdx.x} * elements_per_block - layout.lead;
  const int64_t first = start + 4 * static_cast<int>(threadIdx.x);
  const bool full = layout.aligned && start >= 0 && start + elements_per_block <= layout.n;
  if (full) process_vec4s<true>(f, first, layout.n);
  else process_vec4s<false>(f, first, layout.n);
}

// Calls f.load(vec4, registers) and f.store(vec4, registers) for every vec4. `registers` is the
// thread's F::Registers.
template <class F>
void launch_elementwise(const F& f, const Vec4Layout& layout) {
  const int64_t blocks = layout.n > 0 ? ceil_div(layout.n + layout.lead, elements_per_block) : 0;
  launch(elementwise_kernel<F>, dim3(static_cast<unsigned>(blocks)), dim3(elementwise_threads), 0,
         f, layout);
}

template <class T, class F, int sources>
struct MapFunctor {
  F f;
  T* y;
  const T* x[sources];

  struct Registers {
    T x[sources][4];
  };
  template <bool full>
  __device__ __forceinline__ void load(const Vec4<full>& vec4, Registers& registers) const {
#pragma unroll
    for (int i = 0; i < sources; ++i) vec4.load(x[i], registers.x[i]);
  }
  template <bool full>
  __device__ __forceinline__ void store(const Vec4<full>& vec4, const Registers& registers) const {
    T result[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sources == 1) result[i] = f(registers.x[0][i]);
      else result[i] = f(registers.x[0][i], registers.x[1][i]);
    }
    vec4.store(result, y);
  }
};

// Computes y[i] = f(x[i]) or f(x[i], more[i]).
template <class T, class F, class... More>
void map(int64_t n, T* y, const F& f, const T* x, const More*... more) {
  launch_elementwise(MapFunctor<T, F, 1 + sizeof...(more)>{f, y, {x, more...}},
                     Vec4Layout::starting_aligned<T>(n, {y, x, more...}));
}

}  // namespace chainrule::cuda
