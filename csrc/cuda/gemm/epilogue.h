// GEMM epilogue (bias and ReLU) and the output policies that store a thread's results. The unit is
// a fragment of 4 x 4 elements, or of 4 x 1 in a split-K reduction.
#pragma once

#include "cuda/gemm/async_copy.h"
#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

// Adds the bias per column, then applies ReLU, eq. (15). NaN stays NaN.
template <class T>
struct Epilogue {
  const T* bias = nullptr;
  bool relu = false;

  template <int width>
  __device__ __forceinline__ void operator()(T (&v)[4][width], int64_t column, int64_t n) const {
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const T add = bias && column + j < n ? bias[column + j] : T(0);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (bias) v[i][j] += add;
        if (relu && v[i][j] <= T(0)) v[i][j] = T(0);
      }
    }
  }
};

// Stores one row of a fragment. `vectorized` requires `to` to be aligned to 16 bytes and four
// columns to exist.
template <class T, int width>
__device__ __forceinline__ void store_row(const T (&v)[width], T* to, bool vectorized,
                                          int64_t column, int64_t n) {
  if constexpr (width == 4) {
    if (vectorized) return store_vec4(v, to);
  }
#pragma unroll
  for (int j = 0; j < width; ++j) {
    if (column + j < n) to[j] = v[j];
  }
}

template <class T>
bool can_store_vec4(const T* to, int64_t columns) {
  return columns % 4 == 0 && is_aligned16(to);
}

// Stores to a dense row-major matrix.
template <class T>
struct MatrixOutput {
  T* data;
  int64_t columns;
  Epilogue<T> epilogue;
  bool vectorized;

  MatrixOutput(T* to, int64_t n, Epilogue<T> with = {})
      : data(to), columns(n), epilogue(with), vectorized(can_store_vec4(to, n)) {}

  template <int width>
  __device__ __forceinline__ void store(int64_t row, int64_t column, T (&v)[4][width], int64_t m,
                                        int64_t n) const {
    epilogue(v, column, n);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row + i < m) store_row(v[i], data + (row + i) * columns + column, vectorized, column, n);
    }
  }
};

}  // namespace chainrule::cuda
