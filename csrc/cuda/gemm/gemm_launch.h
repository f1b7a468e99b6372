// Host side of gemm.h: choice of the tile and the number of splits, and the launches.
#pragma once

#include "cuda/gemm/epilogue.h"
#include "cuda/gemm/gemm.h"
#include "cuda/runtime/limits.h"

namespace chainrule::cuda {

enum class TileShape { large, medium, narrow };

// Tile and split-K configuration, chosen from the shape alone by an estimate in cycles. Each split
// is a thread block of its own, and its sums go through global memory.
template <class T>
class GemmConfig {
 public:
  TileShape tile = TileShape::medium;
  TilePartition partition;

  GemmConfig(int64_t m, int64_t n, int64_t k) {
    if (m == 0 || n == 0) {
      partition.column_tiles = 0;
      return;
    }
    int64_t best_cycles = INT64_MAX;
    const auto try_tile = [&](TileShape shape, int64_t rows, int64_t columns, int64_t percent) {
      bool found = false;
      for (const int requested_splits :
           {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256}) {
        const int64_t k_per_split =
            max(tile_k, ceil_div(ceil_div(k, requested_splits), tile_k) * tile_k);
        const int64_t splits = max(1, ceil_div(k, k_per_split));
        if (found && (k <= 2 * min_k_per_split || k_per_split < min_k_per_split ||
                      splits * m * n > max_partials)) {
          break;
        }
        found = true;
        const TilePartition candidate{.m = m,
                                      .n = n,
                                      .k = k,
                                      .row_tiles = static_cast<int>(ceil_div(m, rows)),
                                      .column_tiles = static_cast<int>(ceil_div(n, columns)),
                                      .splits = static_cast<int>(splits),
                                      .k_per_split = k_per_split,
                                      .partial_pitch = ceil_div(n, 4) * 4};
        const int64_t cycles = estimate(candidate, rows * columns, percent);
        if (cycles < best_cycles) {
          best_cycles = cycles;
          tile = shape;
          partition = candidate;
        }
      }
    };
    try_tile(TileShape::medium, 64, 64, 80);
    if constexpr (sizeof(T) == 4) {
      try_tile(TileShape::large, 128, 128, 100);
      try_tile(TileShape::narrow, 128, 32, 70);
    }
    limit_k_per_split();
  }

  // Returns the same partition of k for another number of rows. Each element's sum is
  // bit-identical.
  GemmConfig with_rows(int64_t m) const {
    GemmConfig config = *this;
    const int64_t rows = tile == TileShape::medium ? 64 : 128;
    config.partition.m = m;
    config.partition.row_tiles = static_cast<int>(ceil_div(m, rows));
    return config;
  }

  int64_t workspace_bytes() const {
    if (!partition.has_partials()) return 0;
    const int64_t slots = partition.splits + (partition.launches > 1 ? 1 : 0);
    return slots * partition.partial_size() * static_cast<int64_t>(sizeof(T));
  }

 private:
  static constexpr int64_t sm_count =
      132;  // of an H100, whatever the device, so that results do not depend on it
  static constexpr int64_t min_k_per_split = 4 * tile_k;
  static constexpr int64_t max_partials = int64_t{1} << 24;
  // A thread adds the terms of a split in order, so the error grows with their number.
  static constexpr int64_t max_k_per_split = 4096;

  // Sets more splits if k_per_split is too large, as many per launch as max_partials permits.
  void limit_k_per_split() {
    if (partition.k_per_split <= max_k_per_split) return;
    // The partial sums of a larger result would take more memory than the result itself.
    if (partition.m * partition.n > max_partials && partition.k_per_split <= max_extent) return;
    const int64_t count = ceil_div(partition.k, max_k_per_split);
    const int64_t per_launch = max(1, min(count, max_partials / (partition.m * partition.n)));
    partition.k_per_split = ceil_div(ceil_div(partition.k, count), tile_k) * tile_k;
    partition.splits = static_cast<int>(per_launch);
    partition.launches = static_cast<int>(ceil_div(partition.total_splits(), per_launch));
  }

  // A step of tile_k takes the larger of its arithmetic (128 multiply-adds per cycle) and the
  // memory latency.
  static int64_t estimate(const TilePartition& partition, int64_t area, int64_t percent) {
    const int64_t blocks = int64_t{partition.row_tiles} * partition.column_tiles * partition.splits;
    const int64_t step = ceil_div(blocks, sm_count) * area * tile_k * 100 / 128 / percent;
    const int64_t reduction =
        partition.splits == 1 ? 0 : 3000 + partition.splits * partition.m * partition.n / 200;
    return 2000 + partition.k_per_split / tile_k * max(step, 800) + reduction;
  }
};

template <class T, class Tile, class A, class B, class Output>
void launch_gemm(const A& a, const B& b, const Output& output, const TilePartition& partition,
                 T* partials) {
  const int64_t blocks = int64_t{partition.row_tiles} * partition.column_tiles * partition.splits;
  launch(gemm_kernel<T, Tile, A, B, Output>, dim3(static_cast<unsigned>(blocks)),
         dim3(Tile::threads), 0, a, b, output, partition, partials);
}

// Reduces partial sums of shape (splits, m, partial_pitch).
template <class T, class Output>
void reduce_splits(const T* partials, const Output& output, const TilePartition& partition) {
  const int64_t blocks = ceil_div(ceil_div(partition.m, 4) * partition.n, reduce_threads);
  launch(reduce_splits_kernel<T, Output>, dim3(static_cast<unsigned>(blocks)), dim3(reduce_threads),
         0, partials, output, partition);
}

// Computes one launch of the partition. Tensor cores have only the tiles of 128 rows: small
// problems use the medium tile, which has no tensor core version.
template <class T, class A, class B, class Output>
void launch_tiles(const GemmConfig<T>& config, const A& a, const B& b, const Output& output,
                  const TilePartition& partition, T* partials) {
  if constexpr (sizeof(T) == 4) {
    const bool tf32 = ScopedPrecision::current() == Precision::tf32;
    if (config.tile == TileShape::large) {
      if (tf32) launch_gemm<T, Tile<T, 2, 4, 2, true>>(a, b, output, partition, partials);
      else launch_gemm<T, Tile<T, 2, 4, 2>>(a, b, output, partition, partials);
    } else if (config.tile == TileShape::narrow) {
      if (tf32) launch_gemm<T, Tile<T, 4, 1, 1, true>>(a, b, output, partition, partials);
      else launch_gemm<T, Tile<T, 4, 1, 1>>(a, b, output, partition, partials);
    } else {
      launch_gemm<T, Tile<T, 2, 2, 1>>(a, b, output, partition, partials);
    }
  } else {
    launch_gemm<T, Tile<T, 2, 2, 1>>(a, b, output, partition, partials);
  }
}

// Runs the GEMM. `partials` is the workspace of the config.
template <class T, class A, class B, class Output>
void run_gemm(const GemmConfig<T>& config, const A& a, const B& b, const Output& output,
              T* partials) {
  const TilePartition& all = config.partition;
  // The sum of the previous launches is the last partial sum of the next one.
  const MatrixOutput<T> total(partials + all.splits * all.partial_size(), all.partial_pitch);
  for (int index = 0; index < all.launches; ++index) {
    TilePartition partition = all;
    const int64_t before = int64_t{index} * all.splits;
    partition.first_k = before * all.k_per_split;
    partition.splits = static_cast<int>(min(all.splits, all.total_splits() - before));
    T* const from = partials + (all.splits - partition.splits) * all.partial_size();
    launch_tiles(config, a, b, output, partition, from);
    if (!partition.has_partials()) return;
    if (index > 0) ++partition.splits;
    if (index + 1 < all.launches) reduce_splits(static_cast<const T*>(from), total, partition);
    else reduce_splits(static_cast<const T*>(from), output, partition);
  }
}

}  // namespace chainrule::cuda
