// Dense matrices as GEMM operands, the dense GEMM, and column sums.
#pragma once

#include "core/shape.h"
#include "cuda/gemm/epilogue.h"
#include "cuda/gemm/gemm_launch.h"
#include "cuda/long_sum.h"

namespace chainrule::cuda {

// Element (i, k) is data[i · row_stride + k · k_stride]. One of the two strides is 1.
template <class T, bool k_is_contiguous>
struct MatrixLoader {
  static constexpr bool k_contiguous = k_is_contiguous, skips_zeros = false;
  const T* data;
  int64_t count, row_stride, k_stride;
  bool vectorized;

  MatrixLoader(const T* from, int64_t rows, int64_t stride)
      : data(from),
        count(rows),
        row_stride(k_contiguous ? stride : 1),
        k_stride(k_contiguous ? 1 : stride),
        vectorized(stride % vector_width<T> == 0 && rows % vector_width<T> == 0 &&
                   is_aligned16(from)) {}

  using Row = const T*;
  using Start = int64_t;
  // Rows past the last are clamped to the first. Their results are not stored.
  __device__ Row row(int64_t i) const { return data + (i < count ? i * row_stride : 0); }
  __device__ Start start(int64_t k) const { return k; }
  __device__ __forceinline__ int64_t step(Start first, int more) const {
    return (first + more) * k_stride;
  }
  __device__ __forceinline__ bool address(Row first, int64_t offset, const T*& p) const {
    p = first + offset;
    return true;
  }
};

// Computes c (m, n) = a (m, k) · b (k, n) with operands stored as in Matmul. Defined and
// instantiated in matmul.cu.
template <class T>
void dense_gemm(const T* a, const T* b, const Matmul& s, const MatrixOutput<T>& c, T* partials);

constexpr int column_threads = 32, row_threads = 8;

// Sums columns of (rows, columns). Each block has rows_per_part rows and 32 columns.
template <class T>
__global__ void __launch_bounds__(column_threads* row_threads)
    sum_columns_kernel(const T* source, int64_t rows, int64_t columns, int64_t rows_per_part,
                       int64_t column_tiles, T* partials) {
  __shared__ T sums[row_threads][column_threads];
  const int x = static_cast<int>(threadIdx.x) % column_threads;
  const int y = static_cast<int>(threadIdx.x) / column_threads;
  const int64_t part = blockIdx.x / column_tiles;
  const int64_t column = (blockIdx.x - part * column_tiles) * column_threads + x;
  const int64_t end = (part + 1) * rows_per_part < rows ? (part + 1) * rows_per_part : rows;
  LongSum<T> sum;
  if (column < columns) {
    int64_t count = 0;
    for (int64_t i = part * rows_per_part + y; i < end; i += row_threads) {
      sum.part += source[i * columns + column];
      sum.added(++count);
    }
  }
  T total = sum.total();
  sums[y][x] = total;
  __syncthreads();
  if (y > 0 || column >= columns) return;
  for (int i = 1; i < row_threads; ++i) total += sums[i][x];
  partials[part * columns + column] = total;
}

// Gradient of a bias: the sum of each column. The order of the sums depends only on the shape.
template <class T>
struct ColumnSums {
  int64_t rows, columns, rows_per_part, parts;

  ColumnSums(int64_t m, int64_t n) : rows(m), columns(n) {
    rows_per_part = max(256, ceil_div(m, 256));
    parts = max(1, ceil_div(m, rows_per_part));
  }
  int64_t workspace_bytes() const {
    return parts == 1 ? 0 : parts * columns * static_cast<int64_t>(sizeof(T));
  }
  void run(const T* source, T* target, T* partials) const {
    const int64_t tiles = ceil_div(columns, column_threads);
    launch(sum_columns_kernel<T>, dim3(static_cast<unsigned>(tiles * parts)),
           dim3(column_threads * row_threads), 0, source, rows, columns, rows_per_part, tiles,
           parts == 1 ? target : partials);
    if (parts == 1) return;
    const TilePartition partition{
        .m = 1, .n = columns, .splits = static_cast<int>(parts), .partial_pitch = columns};
    reduce_splits(static_cast<const T*>(partials), MatrixOutput<T>(target, columns), partition);
  }
};

}  // namespace chainrule::cuda
