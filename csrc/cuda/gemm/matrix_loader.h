// Matrices as operands of gemm.h, their product, and the sums of their columns.
#pragma once

#include "core/shape.h"
#include "cuda/gemm/epilogue.h"
#include "cuda/gemm/gemm_launch.h"

namespace chainrule::cuda {

// Element (i, k) is data[i · row_stride + k · k_stride]; one of the two is 1.
template <class T, bool k_is_contiguous>
struct Matrix {
  static constexpr bool along_k = k_is_contiguous, skips_zeros = false;
  const T* data;
  int64_t count, row_stride, k_stride;
  bool wide;

  Matrix(const T* from, int64_t rows, int64_t stride)
      : data(from),
        count(rows),
        row_stride(along_k ? stride : 1),
        k_stride(along_k ? 1 : stride),
        wide(stride % piece_size<T> == 0 && rows % piece_size<T> == 0 && piecewise(from)) {}

  using Row = const T*;
  using Start = int64_t;
  // Rows past the last are the first's again: what they give is not stored.
  __device__ Row row(int64_t i) const { return data + (i < count ? i * row_stride : 0); }
  __device__ Start from(int64_t k) const { return k; }
  __device__ __forceinline__ int64_t step(Start first, int more) const {
    return (first + more) * k_stride;
  }
  __device__ __forceinline__ bool at(Row first, int64_t offset, const T*& p) const {
    p = first + offset;
    return true;
  }
};

// c (m, n) = a (m, k) · b (k, n), operands stored as in Matmul; in matmul.cu for all.
template <class T>
void product(const T* a, const T* b, const Matmul& s, const MatrixResult<T>& c, T* partial);

constexpr int column_lanes = 32, row_lanes = 8;

// Sums of the columns of (rows, columns), a chunk of rows and 32 columns a block.
template <class T>
__global__ void __launch_bounds__(column_lanes* row_lanes)
    sum_columns(const T* source, int64_t rows, int64_t columns, int64_t chunk, int64_t column_tiles,
                T* partial) {
  __shared__ T sums[row_lanes][column_lanes];
  const int x = static_cast<int>(threadIdx.x) % column_lanes;
  const int y = static_cast<int>(threadIdx.x) / column_lanes;
  const int64_t part = blockIdx.x / column_tiles;
  const int64_t column = (blockIdx.x - part * column_tiles) * column_lanes + x;
  const int64_t end = (part + 1) * chunk < rows ? (part + 1) * chunk : rows;
  T total = T(0);
  if (column < columns) {
    for (int64_t i = part * chunk + y; i < end; i += row_lanes) {
      total += source[i * columns + column];
    }
  }
  sums[y][x] = total;
  __syncthreads();
  if (y > 0 || column >= columns) return;
  for (int i = 1; i < row_lanes; ++i) total += sums[i][x];
  partial[part * columns + column] = total;
}

// The gradient of a bias. The order of its sums follows from the shape.
template <class T>
struct ColumnSums {
  int64_t rows, columns, chunk, chunks;

  ColumnSums(int64_t m, int64_t n) : rows(m), columns(n) {
    chunk = larger(256, ceil_div(m, 256));
    chunks = larger(1, ceil_div(m, chunk));
  }
  int64_t workspace() const {
    return chunks == 1 ? 0 : chunks * columns * static_cast<int64_t>(sizeof(T));
  }
  void run(const T* source, T* target, T* partial) const {
    const int64_t tiles = ceil_div(columns, column_lanes);
    launch(sum_columns<T>, dim3(static_cast<unsigned>(tiles * chunks)),
           dim3(column_lanes * row_lanes), 0, source, rows, columns, chunk, tiles,
           chunks == 1 ? target : partial);
    if (chunks == 1) return;
    const Cut cut{.m = 1, .n = columns, .splits = static_cast<int>(chunks), .pitch = columns};
    add_parts(static_cast<const T*>(partial), MatrixResult<T>(target, columns), cut);
  }
};

}  // namespace chainrule::cuda
