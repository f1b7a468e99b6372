// The loop of a convolution's backward passes over a sparse gradient. A filter's row, and the
// pixels under it, are runs of columns * channels contiguous numbers, and with g the gradient of
// filter k at a pixel
//   weight    run (k, r) of dweight += g · the pixels' run          over a filter's pixels
//   input     the pixels' run       += g · run (k, r) of the weight over a pixel's filters
// so a block of target runs, of several rows r, is held in registers while the gradients that
// concern it pass by: 3 rows of 6 registers for 3 x 3 x 32. Which ones do is a set of bits. Each
// gradient loads as many registers as it multiplies, so the source has to be in the first-level
// cache.
#pragma once

#include "cpu/kernels/conv/implicit_gemm.h"

namespace chainrule::CR_ISA {

constexpr int most_accumulators = CR_REGISTERS == 32 ? 24 : 12;
// Every pair within these is an instance; one number wide, they would only cost space.
constexpr int most_rows = CR_VECTOR_BYTES == 0 ? 1 : 5, most_vectors = CR_VECTOR_BYTES == 0 ? 4 : 8;

// What the bits of a set mean. Filters at one place of one window:
template <class T>
struct OfFilters {
  const T* g;
  int64_t run;  // from one filter's runs to the next's

  CR_INLINE T value(int64_t i) const { return g[i]; }
  CR_INLINE int64_t offset(int64_t i) const { return i * run; }
};
// Windows of a band, for one filter:
template <class T>
struct OfWindows {
  const T* g;
  const uint16_t* places;
  int64_t step;  // from one window to the next, of g and places
  const int64_t* windows;
  const int64_t* corners;

  CR_INLINE T value(int64_t i) const { return g[i * step]; }
  CR_INLINE int64_t offset(int64_t i) const { return windows[i] + corners[places[i * step]]; }
};

// A block of runs, rows `target_row` apart, to which Σ value · source[offset ...] is added, rows
// `source_row` apart, over the set. Of each run's last register only `lanes` are stored; all of it
// is read.
template <class T, class Set>
struct Block {
  T* target;
  int64_t target_row;
  const T* source;
  int64_t source_row;
  const uint64_t* words;
  int64_t word_count;
  Set set;
  int64_t lanes = 0;
};

template <int rows, int vectors, class T, class Set>
void add_block(const Block<T, Set>& block) {
  using V = Vec<T>;
  V total[rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      total[r][j] = V::load(block.target + r * block.target_row + j * V::width);
    }
  }
  const int64_t source_row = block.source_row;
  const T* const source = block.source;
  const Set set = block.set;
  for (int64_t word = 0; word < block.word_count; ++word) {
    for (uint64_t bits = block.words[word]; bits != 0; bits &= bits - 1) {
      const int64_t i = 64 * word + __builtin_ctzll(bits);
      const V value = V::set(set.value(i));
      const T* from = source + set.offset(i);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r, from += source_row) {
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) {
          total[r][j] = fma(value, V::load(from + j * V::width), total[r][j]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    T* const to = block.target + r * block.target_row;
#pragma GCC unroll 8
    for (int j = 0; j < vectors - 1; ++j) total[r][j].store(to + j * V::width);
    T* const end = to + (vectors - 1) * V::width;
    if (block.lanes == V::width) total[r][vectors - 1].store(end);
    else total[r][vectors - 1].store(end, block.lanes);
  }
}

template <class T, class Set>
using AddBlock = void (*)(const Block<T, Set>&);

// The instance for so many rows and registers a run, both within the limits above.
template <class T, class Set, int rows = most_rows, int vectors = most_vectors>
AddBlock<T, Set> instance(int64_t wanted_rows, int64_t wanted_vectors) {
  if constexpr (rows * vectors <= most_accumulators) {
    if (rows == wanted_rows && vectors == wanted_vectors) return add_block<rows, vectors, T, Set>;
  }
  if constexpr (vectors > 1) {
    return instance<T, Set, rows, vectors - 1>(wanted_rows, wanted_vectors);
  } else if constexpr (rows > 1) {
    return instance<T, Set, rows - 1>(wanted_rows, wanted_vectors);
  } else {
    return nullptr;
  }
}

// Runs of any number of rows and any length, block by block.
template <class T, class Set>
class Runs {
 public:
  Runs(int64_t rows, int64_t length) : rows_(rows), length_(length) {
    const int64_t most = larger(1, ceil_div(length, V::width));
    block_rows_ =
        smaller(smaller(rows, most_rows), most_accumulators / smaller(most, most_vectors));
    for (int last_rows = 0; last_rows < 2; ++last_rows) {
      for (int last = 0; last < 2; ++last) {
        const int64_t r = last_rows ? rows % block_rows_ : block_rows_;
        const int64_t v = last ? (most - 1) % most_vectors + 1 : smaller(most, most_vectors);
        add_[last_rows][last] = r > 0 ? instance<T, Set>(r, v) : nullptr;
      }
    }
  }

  void add(Block<T, Set> block) const {
    uint64_t any = 0;
    for (int64_t word = 0; word < block.word_count; ++word) any |= block.words[word];
    if (any == 0) return;
    constexpr int64_t step = most_vectors * V::width;
    for (int64_t left = length_; left > 0; left -= step) {
      const bool last = left <= step;
      block.lanes = last ? left - (ceil_div(left, V::width) - 1) * V::width : V::width;
      Block<T, Set> part = block;
      for (int64_t r = 0; r < rows_; r += block_rows_) {
        add_[rows_ - r < block_rows_][last](part);
        part.target += block_rows_ * block.target_row;
        part.source += block_rows_ * block.source_row;
      }
      block.target += step;
      block.source += step;
    }
  }

 private:
  using V = Vec<T>;
  int64_t rows_, length_, block_rows_;
  AddBlock<T, Set> add_[2][2];
};

constexpr int64_t first_level_bytes = 28 << 10;

// Sizes that these passes share.
template <class T>
struct Sizes {
  int64_t run, run_padded;          // a filter's row, and with whole registers
  int64_t rows_seen, columns_seen;  // pixels under any window, the border included
  int64_t row;                      // elements in a row of them
  int64_t image;                    // elements of the copy, with what may be read behind it

  explicit Sizes(const Conv2d& s) {
    run = s.window.columns * s.in;
    run_padded = round_up(run, Vec<T>::width);
    rows_seen = (s.out_height - 1) * s.window.stride_rows + s.window.rows;
    columns_seen = (s.out_width - 1) * s.window.stride_columns + s.window.columns;
    row = columns_seen * s.in;
    image = round_up(rows_seen * row + run_padded, 16);
  }
};

// Where the pixels under a filter at position (row, column) of the convolution's output begin.
template <class T>
int64_t corner(const Conv2d& s, const Sizes<T>& sizes, int64_t row, int64_t column) {
  return row * s.window.stride_rows * sizes.row + column * s.window.stride_columns * s.in;
}

// Rows of the weight that pass by at a time, so that they stay in the first-level cache.
template <class T>
int64_t rows_at_once(const Conv2d& s, const Sizes<T>& sizes) {
  const int64_t bytes = larger(1, s.out * sizes.run_padded * static_cast<int64_t>(sizeof(T)));
  return smaller(s.window.rows, larger(1, first_level_bytes / bytes));
}

// Filters packed as (groups of rows, filters, rows of the group, run), each run behind `before`
// zeros and padded with zeros.
template <class T>
struct PackedRuns {
  int64_t group;
  int64_t before, step;  // elements from one run to the next: zeros, run, zeros

  int64_t size(const Conv2d& s) const { return round_up(s.window.rows * s.out * step, 16); }
  // Where the first run lies of the group that begins with row `first`.
  int64_t offset(const Conv2d& s, int64_t first) const { return first * s.out * step + before; }
  // From one filter's runs to the next's in that group.
  int64_t between(const Conv2d& s, int64_t first) const {
    return smaller(group, s.window.rows - first) * step;
  }

  void pack(const T* weight, int64_t k, const Conv2d& s, T* packed) const {
    const int64_t rows = s.window.rows, run = s.window.columns * s.in;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = r / group * group;
      T* const to = packed + offset(s, first) - before + k * between(s, first) + (r - first) * step;
      const T* const from = weight + (k * rows + r) * run;
      for (int64_t i = 0; i < step; ++i) to[i] = T(0);
      for (int64_t i = 0; i < run; ++i) to[before + i] = from[i];
    }
  }
};
template <class T>
PackedRuns<T> packed_runs(const Conv2d& s, const Sizes<T>& sizes) {
  return {rows_at_once(s, sizes), 0, sizes.run_padded};
}

}  // namespace chainrule::CR_ISA
