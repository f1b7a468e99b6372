// Where a product goes, as gemm.h's Result: squares of 4 x 4, or columns of four rows.
#pragma once

#include "cuda/async_copy.h"
#include "cuda/simt.h"

namespace chainrule::cuda {

// What is added to the columns, and the rectifier, eq. (15), which leaves a NaN one.
template <class T>
struct Finish {
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

// One row's part. `wide`: four columns are an aligned piece, or two of them.
template <class T, int width>
__device__ __forceinline__ void store_row(const T (&v)[width], T* to, bool wide, int64_t column,
                                          int64_t n) {
  if constexpr (width == 4) {
    if (wide) return store_four(v, to);
  }
#pragma unroll
  for (int j = 0; j < width; ++j) {
    if (column + j < n) to[j] = v[j];
  }
}

template <class T>
bool stores_wide(const T* to, int64_t columns) {
  return columns % 4 == 0 && piecewise(to);
}

// A dense matrix.
template <class T>
struct MatrixResult {
  T* data;
  int64_t columns;
  Finish<T> finish;
  bool wide;

  MatrixResult(T* to, int64_t n, Finish<T> with = {})
      : data(to), columns(n), finish(with), wide(stores_wide(to, n)) {}

  template <int width>
  __device__ __forceinline__ void store(int64_t row, int64_t column, T (&v)[4][width], int64_t m,
                                        int64_t n) const {
    finish(v, column, n);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row + i < m) store_row(v[i], data + (row + i) * columns + column, wide, column, n);
    }
  }
};

}  // namespace chainrule::cuda
