// Loops over the elements of arrays of one size, four at a time: an aligned piece of float, two of
// double. A thread has loaded all its fours before it stores one, so that memory answers them
// together; each element is stored by the thread that loaded it, so an array may be its own result.
#pragma once

#include <initializer_list>

#include "cuda/fast_divide.h"
#include "cuda/gemm/async_copy.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {

constexpr int element_threads = 256, fours_a_thread = 2;
constexpr int64_t elements_aside = 4 * element_threads;
constexpr int64_t elements_a_block = elements_aside * fours_a_thread;

// Elements `first` to `first` + 3. Not `whole`: those of them in [0, n), at any address.
template <bool whole>
struct Four {
  int64_t first, n;

  template <class T>
  __device__ __forceinline__ void load(const T* from, T (&to)[4]) const {
    if constexpr (whole) {
      load_four(from + first, to);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[i] = there(i) ? from[first + i] : T(0);
    }
  }
  template <class T>
  __device__ __forceinline__ void store(const T (&from)[4], T* to) const {
    if constexpr (whole) {
      store_four(from, to + first);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (there(i)) to[first + i] = from[i];
      }
    }
  }

 private:
  __device__ bool there(int i) const { return first + i >= 0 && first + i < n; }
};

// How n elements are cut into fours.
struct Fours {
  int64_t n;
  int missing;  // elements that the first four lacks
  bool wide;    // in every array they are aligned pieces

  // The first four begins with element 0.
  static Fours from_zero(int64_t n, std::initializer_list<const void*> arrays) {
    bool wide = true;
    for (const void* array : arrays) wide = wide && piecewise(array);
    return {n, 0, wide};
  }

  // Parts of longer arrays often begin at the same place between two multiples of 16 bytes: there
  // the first four begins at the lower one.
  template <class T>
  static Fours anywhere(int64_t n, std::initializer_list<const T*> arrays) {
    const auto place = [](const T* p) { return reinterpret_cast<uintptr_t>(p) % 16; };
    const uintptr_t first = place(*arrays.begin());
    for (const T* array : arrays) {
      if (place(array) != first) return {n, 0, false};
    }
    return {n, static_cast<int>(first / sizeof(T)), true};
  }
};

template <bool whole, class F>
__device__ __forceinline__ void do_fours(const F& f, int64_t first, int64_t n) {
  typename F::Held held[fours_a_thread];
#pragma unroll
  for (int i = 0; i < fours_a_thread; ++i) {
    f.load(Four<whole>{first + i * elements_aside, n}, held[i]);
  }
#pragma unroll
  for (int i = 0; i < fours_a_thread; ++i) {
    f.store(Four<whole>{first + i * elements_aside, n}, held[i]);
  }
}

template <class F>
__global__ void __launch_bounds__(element_threads) fours_kernel(F f, Fours s) {
  const int64_t start = int64_t{blockIdx.x} * elements_a_block - s.missing;
  const int64_t first = start + 4 * static_cast<int>(threadIdx.x);
  const bool whole = s.wide && start >= 0 && start + elements_a_block <= s.n;
  if (whole) do_fours<true>(f, first, s.n);
  else do_fours<false>(f, first, s.n);
}

// f.load(four, held) and f.store(four, held) for every four, `held` being the thread's own F::Held.
template <class F>
void for_fours(const F& f, const Fours& s) {
  const int64_t blocks = s.n > 0 ? ceil_div(s.n + s.missing, elements_a_block) : 0;
  launch(fours_kernel<F>, dim3(static_cast<unsigned>(blocks)), dim3(element_threads), 0, f, s);
}

template <class T, class F, int sources>
struct Map {
  F f;
  T* y;
  const T* x[sources];

  struct Held {
    T x[sources][4];
  };
  template <bool whole>
  __device__ __forceinline__ void load(const Four<whole>& four, Held& held) const {
#pragma unroll
    for (int i = 0; i < sources; ++i) four.load(x[i], held.x[i]);
  }
  template <bool whole>
  __device__ __forceinline__ void store(const Four<whole>& four, const Held& held) const {
    T result[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sources == 1) result[i] = f(held.x[0][i]);
      else result[i] = f(held.x[0][i], held.x[1][i]);
    }
    four.store(result, y);
  }
};

// y[i] = f(x[i]) or f(x[i], more[i]).
template <class T, class F, class... More>
void map(int64_t n, T* y, const F& f, const T* x, const More*... more) {
  for_fours(Map<T, F, 1 + sizeof...(more)>{f, y, {x, more...}},
            Fours::anywhere<T>(n, {y, x, more...}));
}

}  // namespace chainrule::cuda
