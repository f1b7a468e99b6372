// Tiled GEMM, the only one on the GPU: c (m, n) = a (m, k) · b (k, n). Each thread block computes
// one tile of c.
//
// Loaders define where an operand is read: a matrix, its transpose, the pixels under a sliding
// window, or a gradient through max-pooling. The output policy defines where c is stored. Therefore
// no operand is unfolded (im2col) or transposed in memory.
//
// The main loop is double-buffered. It copies the next `tile_k` columns of a and rows of b to
// shared memory while it multiplies the current ones. There is one barrier per step.
//
//  Loader:
//    Row row(i)                  state of row i of a, or column i of b; computed once per block and
//                                stored in shared memory
//    Start start(k)              state of the block's first k
//    Step step(start, offset)    state of k = first + offset
//    bool address(row, step, p)  sets p to the element's address; returns false if the element is 0
//    k_contiguous                elements adjacent in memory are adjacent in k, not in i
//    vectorized                  (if not k_contiguous) 16-byte vectors along i are aligned
//    skips_zeros                 0 · infinity and 0 · NaN contribute nothing if a is 0 there
//  Output:
//    store(row, column, values[4][columns], m, n)
//
// The lanes of a warp are arranged 8 x 4 over its tile. Each lane has 4 x 4 fragments at equal
// distances. So a warp reads whole rows of shared memory banks, 16 bytes per lane.
#pragma once

#include "cuda/fast_divide.h"
#include "cuda/gemm/async_copy.h"
#include "cuda/gemm/precision.h"
#include "cuda/gemm/tensor_core.h"
#include "cuda/runtime/launch.h"
#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

constexpr int tile_k = 16;

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
  return fma(a, b, c);
}

// Tile of one thread block: warps_m x warps_n warps, each with 32 · fragments rows and 32 columns.
template <class T, int warps_m, int warps_n, int fragments, bool use_tensor_cores = false>
struct Tile {
  static constexpr int fragments_m = fragments;
  static constexpr int warp_m = 32 * fragments, warp_n = 32;
  static constexpr int rows = warps_m * warp_m, columns = warps_n * warp_n;
  static constexpr int threads = 32 * warps_m * warps_n;
  // Resident blocks per multiprocessor. The limit is 128 registers per thread for float and 168 for
  // double.
  static constexpr int blocks_per_sm = (sizeof(T) == 4 ? 512 : 384) / threads;
  static constexpr int warps_per_row = warps_n;
  static constexpr bool tensor_cores = use_tensor_cores;
  // Padding of the rows in shared memory. It avoids bank conflicts of the scattered writes of a
  // tile (4) and of the tensor core reads (8).
  static constexpr int pitch_a = rows + (tensor_cores ? 8 : 4),
                       pitch_b = columns + (tensor_cores ? 8 : 4);
};

// Problem size of one launch and its partition into tiles and splits. It depends only on the shape,
// so the order of every sum is the same on every device.
struct TilePartition {
  int64_t m = 0, n = 0, k = 0;
  int row_tiles = 1, column_tiles = 1;
  int splits = 1;
  int64_t k_per_split = 0;
  int64_t partial_pitch = 0;  // row pitch of the partial sums
  // A long sum is computed by several launches. Each has `splits` splits and begins at first_k.
  int launches = 1;
  int64_t first_k = 0;

  __host__ __device__ bool has_partials() const { return splits > 1 || launches > 1; }
  int64_t partial_size() const { return m * partial_pitch; }  // of one split
  int64_t total_splits() const {                              // of all launches
    return k == 0 ? 1 : (k + k_per_split - 1) / k_per_split;
  }
};

// Copies one operand's elements with k in [first, first + tile_k) to shared memory.
template <int extent, int pitch, int threads, class T, class Loader>
__device__ __forceinline__ void load_tile(const Loader& loader, const typename Loader::Row* rows,
                                          const typename Loader::Start& start, int first,
                                          int k_count, T* tile) {
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (Loader::k_contiguous) {
    // Eight threads per row read whole 32-byte sectors. A warp covers vec4 rows.
    constexpr int lanes = 8, row_step = threads / lanes;
    static_assert(extent % row_step == 0);
#pragma unroll 1
    for (int i = 0; i < tile_k; i += lanes) {
      const int k = thread % lanes + i;
      const auto step = loader.step(start, first + k);
      const bool inside = first + k < k_count;
#pragma unroll
      for (int j = 0; j < extent; j += row_step) {
        const int row = thread / lanes + j;
        const T* from;
        const bool valid = loader.address(rows[row], step, from);
        copy_async(tile + k * pitch + row, from, valid && inside);
      }
    }
  } else {
    constexpr int size = vector_width<T>, lanes = extent / size, row_step = threads / lanes;
    static_assert(tile_k % row_step == 0);
    const int row = thread % lanes * size;
#pragma unroll 1
    for (int i = 0; i < tile_k; i += row_step) {
      const int k = thread / lanes + i;
      const auto step = loader.step(start, first + k);
      const bool inside = first + k < k_count;
      T* const to = tile + k * pitch + row;
      const T* from;
      if (loader.vectorized) {
        const bool valid = loader.address(rows[row], step, from);
        copy_vector_async(to, from, valid && inside);
      } else {
#pragma unroll
        for (int j = 0; j < size; ++j) {
          const bool valid = loader.address(rows[row + j], step, from);
          copy_async(to + j, from, valid && inside);
        }
      }
    }
  }
}

// One thread's sums and their position in the tile.
template <class T, class Tile>
struct Accumulators {
  static constexpr int rows = 4 * Tile::fragments_m;
  int row, column;      // of the first fragment in the tile
  T values[rows][8];    // columns: two fragments side by side
  int fragment_stride;  // columns from the first fragment to the second

  __device__ Accumulators() {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    row = warp / Tile::warps_per_row * Tile::warp_m + lane / 4 * 4;
    column = warp % Tile::warps_per_row * Tile::warp_n + lane % 4 * (Tile::tensor_cores ? 8 : 4);
    fragment_stride = Tile::tensor_cores ? 4 : 16;
    clear();
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) values[i][j] = T(0);
    }
  }

  template <bool skip_zeros>
  __device__ __forceinline__ void multiply_add_tile(const T* a, const T* b) {
#pragma unroll 8
    for (int k = 0; k < tile_k; ++k) {
      T left[rows], right[8];
#pragma unroll
      for (int i = 0; i < Tile::fragments_m; ++i) {
        load_vec4(a + k * Tile::pitch_a + row + 32 * i, left + 4 * i);
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        load_vec4(b + k * Tile::pitch_b + column + fragment_stride * j, right + 4 * j);
      }
#pragma unroll
      for (int i = 0; i < rows; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          if (!skip_zeros || !(left[i] == T(0))) {
            values[i][j] = multiply_add(left[i], right[j], values[i][j]);
          }
        }
      }
    }
  }

  // Rows and columns of the warp's tile are permuted for the tensor core. So each lane reads
  // adjacent operands from shared memory, and its results form the same 4 x 4 fragments as above.
  __device__ __forceinline__ void multiply_add_tensor_cores(const T* a, const T* b) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int b_column = column - lane % 4 * 8 + lane / 4 * 4;
#pragma unroll
    for (int k = 0; k < tile_k; k += 8) {
      const int step = k + lane % 4;
      uint32_t left[2][rows], right[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at_k = step + 4 * half;
        T vec4[4];
#pragma unroll
        for (int i = 0; i < Tile::fragments_m; ++i) {
          load_vec4(a + at_k * Tile::pitch_a + row + 32 * i, vec4);
#pragma unroll
          for (int e = 0; e < 4; ++e) left[half][4 * i + e] = to_tf32(vec4[e]);
        }
        load_vec4(b + at_k * Tile::pitch_b + b_column, vec4);
#pragma unroll
        for (int e = 0; e < 4; ++e) right[half][e] = to_tf32(vec4[e]);
      }
#pragma unroll
      for (int i = 0; i < rows; i += 2) {
        const uint32_t x[4] = {left[0][i], left[0][i + 1], left[1][i], left[1][i + 1]};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t y[2] = {right[0][j], right[1][j]};
          multiply_tf32(x, y, values[i][j], values[i][4 + j], values[i + 1][j],
                        values[i + 1][4 + j]);
        }
      }
    }
  }

  __device__ bool has_nan() const {
    bool any = false;
#pragma unroll
    for (int i = 0; i < rows; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) any = any || values[i][j] != values[i][j];
    }
    return any;
  }
};

template <class T, class Tile>
struct SharedTiles {
  alignas(16) T a[2][tile_k][Tile::pitch_a];
  alignas(16) T b[2][tile_k][Tile::pitch_b];
};

// The loop over k of one thread block.
template <class T, class Tile, class A, class B>
struct Mainloop {
  const A& a;
  const B& b;
  const typename A::Row* rows;
  const typename B::Row* columns;
  const typename A::Start& a_start;
  const typename B::Start& b_start;
  int k_count;  // of this split

  __device__ __forceinline__ void load(int first, int stage, SharedTiles<T, Tile>& shared) const {
    load_tile<Tile::rows, Tile::pitch_a, Tile::threads>(a, rows, a_start, first, k_count,
                                                        &shared.a[stage][0][0]);
    load_tile<Tile::columns, Tile::pitch_b, Tile::threads>(b, columns, b_start, first, k_count,
                                                           &shared.b[stage][0][0]);
  }

  template <bool skip_zeros>
  __device__ __forceinline__ void run(Accumulators<T, Tile>& accumulators,
                                      SharedTiles<T, Tile>& shared) const {
    int stage = 0;
    for (int next = 0; next < k_count + tile_k; next += tile_k, stage ^= 1) {
      wait_for_copies();
      __syncthreads();  // the previous tile has arrived, and its buffer is free again
      if (next < k_count) load(next, stage, shared);
      if (next == 0) continue;
      const T *const left = &shared.a[stage ^ 1][0][0], *const right = &shared.b[stage ^ 1][0][0];
      if constexpr (Tile::tensor_cores && !skip_zeros)
        accumulators.multiply_add_tensor_cores(left, right);
      else accumulators.template multiply_add_tile<skip_zeros>(left, right);
    }
  }
};

template <class T, class Tile, class A, class B, class Output>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks_per_sm)
    gemm_kernel(A a, B b, Output output, TilePartition partition, T* partials) {
  __shared__ SharedTiles<T, Tile> shared;
  __shared__ typename A::Row rows[Tile::rows];
  __shared__ typename B::Row columns[Tile::columns];
  const int thread = static_cast<int>(threadIdx.x);
  const int block = static_cast<int>(blockIdx.x),
            tiles = partition.row_tiles * partition.column_tiles;
  const int split = block / tiles, index = block % tiles;
  // Blocks are ordered in groups of eight tile rows, so that resident blocks share operands in the
  // L2 cache.
  const int group = index / (8 * partition.column_tiles),
            group_index = index % (8 * partition.column_tiles);
  const int group_rows = partition.row_tiles - group * 8 < 8 ? partition.row_tiles - group * 8 : 8;
  const int64_t top = int64_t{group * 8 + group_index % group_rows} * Tile::rows;
  const int64_t left = int64_t{group_index / group_rows} * Tile::columns;
  for (int i = thread; i < Tile::rows; i += Tile::threads) rows[i] = a.row(top + i);
  for (int i = thread; i < Tile::columns; i += Tile::threads) columns[i] = b.row(left + i);
  __shared__ typename A::Start a_start;
  __shared__ typename B::Start b_start;
  const int64_t first = partition.first_k + split * partition.k_per_split;
  const int64_t remaining = partition.k - first;
  const int k_count =
      static_cast<int>(remaining < partition.k_per_split ? remaining : partition.k_per_split);
  if (thread == 0) {
    a_start = a.start(first);
    b_start = b.start(first);
  }
  const Mainloop<T, Tile, A, B> mainloop{a, b, rows, columns, a_start, b_start, k_count};
  Accumulators<T, Tile> accumulators;
  mainloop.template run<false>(accumulators, shared);
  if constexpr (A::skips_zeros) {
    // 0 · infinity and 0 · NaN produce NaN. If any sum of the tile is NaN, the tile is computed
    // again without products whose element of a is 0.
    __shared__ int recompute;
    if (thread == 0) recompute = 0;
    __syncthreads();
    if (accumulators.has_nan()) recompute = 1;
    __syncthreads();
    if (recompute) {
      accumulators.clear();
      mainloop.template run<true>(accumulators, shared);
    }
  }
#pragma unroll
  for (int i = 0; i < Tile::fragments_m; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      T fragment[4][4];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) fragment[r][c] = accumulators.values[4 * i + r][4 * j + c];
      }
      const int64_t row = top + accumulators.row + 32 * i;
      const int64_t column = left + accumulators.column + accumulators.fragment_stride * j;
      if (row >= partition.m || column >= partition.n) continue;
      if (!partition.has_partials()) {
        output.store(row, column, fragment, partition.m, partition.n);
        continue;
      }
      // Partial sums: (splits, m, partial_pitch), rows padded to whole fragments.
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        if (row + r < partition.m) {
          store_vec4(fragment[r],
                     partials + (split * partition.m + row + r) * partition.partial_pitch + column);
        }
      }
    }
  }
}

constexpr int reduce_threads = 256, max_ordered_splits = 1024;

// Adds the partial sums of all splits (split-K), in order up to max_ordered_splits. A thread has
// one column of vec4 rows.
template <class T, class Output>
__global__ void __launch_bounds__(reduce_threads)
    reduce_splits_kernel(const T* partials, Output output, TilePartition partition) {
  const int64_t index = int64_t{blockIdx.x} * reduce_threads + threadIdx.x;
  const int64_t row = index / partition.n * 4, column = index % partition.n;
  if (row >= partition.m) return;
  T v[4][1] = {};
  for (int first = 0; first < partition.splits; first += max_ordered_splits) {
    const int left = partition.splits - first;
    const int last = first + (left < max_ordered_splits ? left : max_ordered_splits);
    T part[4] = {};
    for (int split = first; split < last; ++split) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (row + i < partition.m)
          part[i] += partials[(split * partition.m + row + i) * partition.partial_pitch + column];
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i][0] += part[i];
  }
  output.store(row, column, v, partition.m, partition.n);
}

}  // namespace chainrule::cuda
