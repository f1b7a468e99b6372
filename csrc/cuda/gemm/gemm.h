// The one product of the GPU: c (m, n) = a (m, k) · b (k, n), a block of threads a tile of c.
//
// Where the operands come from is their loaders' matter (a matrix, its transpose, the pixels under
// a sliding window, a gradient through pooling), and where c goes is the result's, so nothing is
// unfolded (im2col) or transposed in memory first. A slab of `depth` columns of a and rows of b
// is copied to shared memory while the slab before is multiplied; one barrier a slab.
//
//   loader    Row row(i)            what there is to know about row i of a, or column i of b; made
//                                   once a block and kept in shared memory
//             Start from(k)         the same for the k that the block begins with, and for those
//             Step step(start, int) that follow
//             bool at(row, step, p) p is where the element lies; false: it is zero
//             along_k               neighbours in memory are neighbours in k, not in i
//             wide                  (not along_k) they come in aligned pieces of 16 bytes
//             skips_zeros           0 · infinity and 0 · NaN count as nothing where a is 0
//   result    store(row, column, values[4][columns], m, n)
//
// Threads of a warp lie 8 x 4 over its tile, and each has squares of 4 x 4 at equal distances, so
// that a warp reads whole rows of banks of shared memory, 16 bytes a thread.
#pragma once

#include "cuda/fast_divide.h"
#include "cuda/gemm/async_copy.h"
#include "cuda/gemm/precision.h"
#include "cuda/gemm/tensor_core.h"
#include "cuda/runtime/launch.h"
#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

constexpr int depth = 16;

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
  return fma(a, b, c);
}

// A warp has 32 · row_squares rows and 32 columns.
template <class T, int warps_down, int warps_across, int squares, bool on_tensor_cores = false>
struct Tile {
  static constexpr int row_squares = squares;
  static constexpr int warp_rows = 32 * squares, warp_columns = 32;
  static constexpr int rows = warps_down * warp_rows, columns = warps_across * warp_columns;
  static constexpr int threads = 32 * warps_down * warps_across;
  // On a multiprocessor: 128 registers a thread, and 168 where numbers take two.
  static constexpr int blocks = (sizeof(T) == 4 ? 512 : 384) / threads;
  static constexpr int across = warps_across;
  static constexpr bool tensor = on_tensor_cores;
  // Rows of shared memory are apart so that neither the scattered writes of a slab (4) nor a
  // tensor core's reads (8) meet in a bank.
  static constexpr int pitch_a = rows + (tensor ? 8 : 4), pitch_b = columns + (tensor ? 8 : 4);
};

// What one launch computes, and how it is cut; by the shape alone, so the sums are the same on
// every device.
struct Cut {
  int64_t m = 0, n = 0, k = 0;
  int row_tiles = 1, column_tiles = 1;
  int splits = 1;
  int64_t chunk = 0;  // of k
  int64_t pitch = 0;  // from one row of the parts' sums to the next
};

// Brings one operand's slab [first, first + depth) of k into shared memory.
template <int extent, int pitch, int threads, class T, class Loader>
__device__ __forceinline__ void load_slab(const Loader& loader, const typename Loader::Row* rows,
                                          const typename Loader::Start& start, int first, int count,
                                          T* slab) {
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (Loader::along_k) {
    // Eight threads a row: whole sectors of 32 bytes; four rows a warp.
    constexpr int lanes = 8, apart = threads / lanes;
    static_assert(extent % apart == 0);
#pragma unroll 1
    for (int i = 0; i < depth; i += lanes) {
      const int k = thread % lanes + i;
      const auto step = loader.step(start, first + k);
      const bool inside = first + k < count;
#pragma unroll
      for (int j = 0; j < extent; j += apart) {
        const int row = thread / lanes + j;
        const T* from;
        const bool there = loader.at(rows[row], step, from);
        copy_async(slab + k * pitch + row, from, there && inside);
      }
    }
  } else {
    constexpr int size = piece_size<T>, lanes = extent / size, apart = threads / lanes;
    static_assert(depth % apart == 0);
    const int row = thread % lanes * size;
#pragma unroll 1
    for (int i = 0; i < depth; i += apart) {
      const int k = thread / lanes + i;
      const auto step = loader.step(start, first + k);
      const bool inside = first + k < count;
      T* const to = slab + k * pitch + row;
      const T* from;
      if (loader.wide) {
        const bool there = loader.at(rows[row], step, from);
        copy_piece_async(to, from, there && inside);
      } else {
#pragma unroll
        for (int j = 0; j < size; ++j) {
          const bool there = loader.at(rows[row + j], step, from);
          copy_async(to + j, from, there && inside);
        }
      }
    }
  }
}

// A thread's part of the tile: where it begins, and the sums.
template <class T, class Tile>
struct Sums {
  static constexpr int rows = 4 * Tile::row_squares;
  int row, column;      // of the first square, in the tile
  T at[rows][8];        // columns: two squares side by side
  int column_distance;  // from one to the other

  __device__ Sums() {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    row = warp / Tile::across * Tile::warp_rows + lane / 4 * 4;
    column = warp % Tile::across * Tile::warp_columns + lane % 4 * (Tile::tensor ? 8 : 4);
    column_distance = Tile::tensor ? 4 : 16;
    clear();
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) at[i][j] = T(0);
    }
  }

  template <bool skip>
  __device__ __forceinline__ void add(const T* a, const T* b) {
#pragma unroll 8
    for (int k = 0; k < depth; ++k) {
      T left[rows], right[8];
#pragma unroll
      for (int i = 0; i < Tile::row_squares; ++i) {
        load_four(a + k * Tile::pitch_a + row + 32 * i, left + 4 * i);
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        load_four(b + k * Tile::pitch_b + column + column_distance * j, right + 4 * j);
      }
#pragma unroll
      for (int i = 0; i < rows; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          if (!skip || !(left[i] == T(0))) {
            at[i][j] = multiply_add(left[i], right[j], at[i][j]);
          }
        }
      }
    }
  }

  // A warp's rows and columns are dealt to the tensor core's so that a thread's operands lie side
  // by side in shared memory, and its results in squares as above.
  __device__ __forceinline__ void add_on_tensor_cores(const T* a, const T* b) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int b_column = column - lane % 4 * 8 + lane / 4 * 4;
#pragma unroll
    for (int k = 0; k < depth; k += 8) {
      const int step = k + lane % 4;
      uint32_t left[2][rows], right[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at_k = step + 4 * half;
        T four[4];
#pragma unroll
        for (int i = 0; i < Tile::row_squares; ++i) {
          load_four(a + at_k * Tile::pitch_a + row + 32 * i, four);
#pragma unroll
          for (int e = 0; e < 4; ++e) left[half][4 * i + e] = to_tf32(four[e]);
        }
        load_four(b + at_k * Tile::pitch_b + b_column, four);
#pragma unroll
        for (int e = 0; e < 4; ++e) right[half][e] = to_tf32(four[e]);
      }
#pragma unroll
      for (int i = 0; i < rows; i += 2) {
        const uint32_t x[4] = {left[0][i], left[0][i + 1], left[1][i], left[1][i + 1]};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t y[2] = {right[0][j], right[1][j]};
          multiply_tf32(x, y, at[i][j], at[i][4 + j], at[i + 1][j], at[i + 1][4 + j]);
        }
      }
    }
  }

  __device__ bool any_nan() const {
    bool any = false;
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) any = any || at[i][j] != at[i][j];
    }
    return any;
  }
};

template <class T, class Tile>
struct Slabs {
  alignas(16) T a[2][depth][Tile::pitch_a];
  alignas(16) T b[2][depth][Tile::pitch_b];
};

template <class T, class Tile, class A, class B>
struct Feeds {
  const A& a;
  const B& b;
  const typename A::Row* rows;
  const typename B::Row* columns;
  const typename A::Start& a_start;
  const typename B::Start& b_start;
  int count;  // of k

  __device__ __forceinline__ void load(int first, int stage, Slabs<T, Tile>& slabs) const {
    load_slab<Tile::rows, Tile::pitch_a, Tile::threads>(a, rows, a_start, first, count,
                                                        &slabs.a[stage][0][0]);
    load_slab<Tile::columns, Tile::pitch_b, Tile::threads>(b, columns, b_start, first, count,
                                                           &slabs.b[stage][0][0]);
  }

  template <bool skip>
  __device__ __forceinline__ void multiply(Sums<T, Tile>& sums, Slabs<T, Tile>& slabs) const {
    int stage = 0;
    for (int next = 0; next < count + depth; next += depth, stage ^= 1) {
      wait_for_copies();
      __syncthreads();  // the slab before `next` is there, and all are done with the one before it
      if (next < count) load(next, stage, slabs);
      if (next == 0) continue;
      const T *const left = &slabs.a[stage ^ 1][0][0], *const right = &slabs.b[stage ^ 1][0][0];
      if constexpr (Tile::tensor && !skip) sums.add_on_tensor_cores(left, right);
      else sums.template add<skip>(left, right);
    }
  }
};

template <class T, class Tile, class A, class B, class Result>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    gemm(A a, B b, Result result, Cut cut, T* partial) {
  __shared__ Slabs<T, Tile> slabs;
  __shared__ typename A::Row rows[Tile::rows];
  __shared__ typename B::Row columns[Tile::columns];
  const int thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x), tiles = cut.row_tiles * cut.column_tiles;
  const int split = block / tiles, index = block % tiles;
  // Eight rows of tiles together, so that blocks at work share operands in the cache.
  const int group = index / (8 * cut.column_tiles), within = index % (8 * cut.column_tiles);
  const int high = cut.row_tiles - group * 8 < 8 ? cut.row_tiles - group * 8 : 8;
  const int64_t top = int64_t{group * 8 + within % high} * Tile::rows;
  const int64_t left = int64_t{within / high} * Tile::columns;
  for (int i = thread; i < Tile::rows; i += Tile::threads) rows[i] = a.row(top + i);
  for (int i = thread; i < Tile::columns; i += Tile::threads) columns[i] = b.row(left + i);
  __shared__ typename A::Start a_start;
  __shared__ typename B::Start b_start;
  const int64_t first = split * cut.chunk, more = cut.k - first;
  const int count = static_cast<int>(more < cut.chunk ? more : cut.chunk);
  if (thread == 0) {
    a_start = a.from(first);
    b_start = b.from(first);
  }
  const Feeds<T, Tile, A, B> feeds{a, b, rows, columns, a_start, b_start, count};
  Sums<T, Tile> sums;
  feeds.template multiply<false>(sums, slabs);
  if constexpr (A::skips_zeros) {
    // A product of a zero shows as NaN. Then the same sums are made again without such products.
    __shared__ int wrong;
    if (thread == 0) wrong = 0;
    __syncthreads();
    if (sums.any_nan()) wrong = 1;
    __syncthreads();
    if (wrong) {
      sums.clear();
      feeds.template multiply<true>(sums, slabs);
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::row_squares; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      T square[4][4];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) square[r][c] = sums.at[4 * i + r][4 * j + c];
      }
      const int64_t row = top + sums.row + 32 * i;
      const int64_t column = left + sums.column + sums.column_distance * j;
      if (row >= cut.m || column >= cut.n) continue;
      if (cut.splits == 1) {
        result.store(row, column, square, cut.m, cut.n);
        continue;
      }
      // The parts' sums: (splits, m, pitch), rows of whole squares.
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        if (row + r < cut.m) {
          store_four(square[r], partial + (split * cut.m + row + r) * cut.pitch + column);
        }
      }
    }
  }
}

constexpr int sum_threads = 256;

// Adds the chunks' sums in order: a thread has one column of four rows, as a square would.
template <class T, class Result>
__global__ void __launch_bounds__(sum_threads)
    add_splits(const T* partial, Result result, Cut cut) {
  const int64_t index = int64_t{blockIdx.x} * sum_threads + threadIdx.x;
  const int64_t row = index / cut.n * 4, column = index % cut.n;
  if (row >= cut.m) return;
  T v[4][1] = {};
  for (int split = 0; split < cut.splits; ++split) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (row + i < cut.m) v[i][0] += partial[(split * cut.m + row + i) * cut.pitch + column];
    }
  }
  result.store(row, column, v, cut.m, cut.n);
}

}  // namespace chainrule::cuda
