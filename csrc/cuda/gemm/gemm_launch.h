// The host's side of gemm.h: which tile, in how many parts, and the launches.
#pragma once

#include "cuda/gemm/gemm.h"
#include "cuda/runtime/limits.h"

namespace chainrule::cuda {

enum class TileSize { large, middle, narrow };

// By the shape alone. An estimate in cycles chooses among the tiles and the numbers of parts that
// k is cut into: a part is a block of its own, and its sums go through memory.
template <class T>
class Plan {
 public:
  TileSize tile = TileSize::middle;
  Cut cut;

  Plan(int64_t m, int64_t n, int64_t k) {
    if (m == 0 || n == 0) {
      cut.column_tiles = 0;
      return;
    }
    int64_t least = INT64_MAX;
    const auto consider = [&](TileSize size, int64_t rows, int64_t columns, int64_t percent) {
      bool found = false;
      for (const int parts : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256}) {
        const int64_t chunk = larger(depth, ceil_div(ceil_div(k, parts), depth) * depth);
        const int64_t splits = larger(1, ceil_div(k, chunk));
        if (found &&
            (k <= 2 * least_chunk || chunk < least_chunk || splits * m * n > most_partials)) {
          break;
        }
        if (chunk > most_counted) continue;
        found = true;
        const Cut one{.m = m,
                      .n = n,
                      .k = k,
                      .row_tiles = static_cast<int>(ceil_div(m, rows)),
                      .column_tiles = static_cast<int>(ceil_div(n, columns)),
                      .splits = static_cast<int>(splits),
                      .chunk = chunk,
                      .pitch = ceil_div(n, 4) * 4};
        const int64_t cycles = estimate(one, rows * columns, percent);
        if (cycles < least) {
          least = cycles;
          tile = size;
          cut = one;
        }
      }
    };
    consider(TileSize::middle, 64, 64, 80);
    if constexpr (sizeof(T) == 4) {
      consider(TileSize::large, 128, 128, 100);
      consider(TileSize::narrow, 128, 32, 70);
    }
  }

  // For so many rows, but cut as it is: an element's sums are the same to the bit.
  Plan with_rows(int64_t m) const {
    Plan plan = *this;
    const int64_t rows = tile == TileSize::middle ? 64 : 128;
    plan.cut.m = m;
    plan.cut.row_tiles = static_cast<int>(ceil_div(m, rows));
    return plan;
  }

  int64_t workspace() const {
    return cut.splits == 1 ? 0 : cut.splits * cut.m * cut.pitch * static_cast<int64_t>(sizeof(T));
  }

 private:
  static constexpr int64_t multiprocessors = 132;  // an H100's, whatever runs it
  static constexpr int64_t least_chunk = 4 * depth;
  static constexpr int64_t most_partials = int64_t{1} << 24;

  // A slab takes its multiply-adds, 128 a cycle, or the way to memory and back.
  static int64_t estimate(const Cut& cut, int64_t area, int64_t percent) {
    const int64_t blocks = int64_t{cut.row_tiles} * cut.column_tiles * cut.splits;
    const int64_t slab = ceil_div(blocks, multiprocessors) * area * depth * 100 / 128 / percent;
    const int64_t sums = cut.splits == 1 ? 0 : 3000 + cut.splits * cut.m * cut.n / 200;
    return 2000 + cut.chunk / depth * larger(slab, 800) + sums;
  }
};

template <class T, class Tile, class A, class B, class Result>
void launch_gemm(const A& a, const B& b, const Result& result, const Cut& cut, T* partial) {
  const int64_t blocks = int64_t{cut.row_tiles} * cut.column_tiles * cut.splits;
  launch(gemm<T, Tile, A, B, Result>, dim3(static_cast<unsigned>(blocks)), dim3(Tile::threads), 0,
         a, b, result, cut, partial);
}

// Adds up what `splits` parts left in (splits, m, pitch).
template <class T, class Result>
void add_parts(const T* partial, const Result& result, const Cut& cut) {
  const int64_t blocks = ceil_div(ceil_div(cut.m, 4) * cut.n, sum_threads);
  launch(add_splits<T, Result>, dim3(static_cast<unsigned>(blocks)), dim3(sum_threads), 0, partial,
         result, cut);
}

// `partial` is the plan's workspace. Tensor cores have tiles of 128 rows only: the middle one is
// chosen where a product is small.
template <class T, class A, class B, class Result>
void multiply(const Plan<T>& plan, const A& a, const B& b, const Result& result, T* partial) {
  const Cut& cut = plan.cut;
  if constexpr (sizeof(T) == 4) {
    const bool tf32 = FixedPrecision::or_chosen() == Precision::tf32;
    if (plan.tile == TileSize::large) {
      if (tf32) launch_gemm<T, Tile<T, 2, 4, 2, true>>(a, b, result, cut, partial);
      else launch_gemm<T, Tile<T, 2, 4, 2>>(a, b, result, cut, partial);
    } else if (plan.tile == TileSize::narrow) {
      if (tf32) launch_gemm<T, Tile<T, 4, 1, 1, true>>(a, b, result, cut, partial);
      else launch_gemm<T, Tile<T, 4, 1, 1>>(a, b, result, cut, partial);
    } else {
      launch_gemm<T, Tile<T, 2, 2, 1>>(a, b, result, cut, partial);
    }
  } else {
    launch_gemm<T, Tile<T, 2, 2, 1>>(a, b, result, cut, partial);
  }
  if (cut.splits > 1) add_parts(static_cast<const T*>(partial), result, cut);
}

}  // namespace chainrule::cuda
