// The one hot loop of the library: a tile of c = a · b in registers.
//
//   rows x columns of the tile   tile_rows x (1..tile_vectors registers)
//   registers                    accumulators + one row of b + one broadcast of a; the
//                                static_assert below does the sum
//
// a is read where it lies, through one pointer a row and a step between the elements of a row: a
// matrix, its transpose, or the pixels under a sliding window are all the same to it, so nothing
// is unfolded (im2col) or packed first. b is packed into slivers as wide as a tile: within a
// sliver, row k is contiguous, padded with zeros to whole registers.
//
// The product runs over segments: `count` runs of `length` elements, a_stride and b_stride apart.
// A matrix product has one; a convolution has one for every row of its window, since the pixels of
// a window's row and their channels lie side by side.
#pragma once

#include "core/shape.h"
#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

constexpr int tile_rows = 6;
constexpr int tile_vectors = CR_REGISTERS == 32 ? 4 : 2;
static_assert(tile_rows * tile_vectors + tile_vectors + 1 <= CR_REGISTERS);

template <class T>
constexpr int tile_columns = tile_vectors * Vec<T>::width;

struct Segments {
  int64_t count, length;
  int64_t a_step, a_stride;
  int64_t b_step, b_stride;
};

// What becomes of a finished tile: where it goes, and what is added on the way.
template <class T>
struct Epilogue {
  const T* bias = nullptr;  // for the tile's columns
  bool accumulate = false;  // start from what is there
  bool rectify = false;
};

// One row of a finished tile.
template <int vectors, class T>
CR_INLINE void finish_row(const Vec<T>* row, T* c, int64_t columns, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int width = V::width;
#pragma GCC unroll 4
  for (int j = 0; j < vectors; ++j) {
    const int64_t left = columns - j * width;
    T* const target = c + j * width;
    V value = row[j];
    if (left >= width) {
      if (epilogue.accumulate) value = value + V::load(target);
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width);
      if (epilogue.rectify) value = select(value <= V::zero(), V::zero(), value);
      value.store(target);
    } else if (left > 0) {
      if (epilogue.accumulate) value = value + V::load(target, left, T(0));
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width, left, T(0));
      if (epilogue.rectify) value = select(value <= V::zero(), V::zero(), value);
      value.store(target, left);
    }
  }
}

// c[i][0 .. columns) for i in [0, rows). Rows past `rows` repeat the last one and are not stored.
template <int vectors, class T>
void multiply_tile(const T* const* a, const T* b, T* const* c, int rows, int64_t columns,
                   const Segments& s, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int width = V::width;
  V accumulator[tile_rows][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < tile_rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) accumulator[i][j] = V::zero();
  }
  for (int64_t segment = 0; segment < s.count; ++segment) {
    const T* row[tile_rows];
#pragma GCC unroll 8
    for (int i = 0; i < tile_rows; ++i) row[i] = a[i] + segment * s.a_stride;
    const T* b_row = b + segment * s.b_stride;
    int64_t offset = 0;
    for (int64_t k = 0; k < s.length; ++k) {
      V right[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) right[j] = V::load(b_row + j * width);
#pragma GCC unroll 8
      for (int i = 0; i < tile_rows; ++i) {
        const V left = V::set(row[i][offset]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j)
          accumulator[i][j] = fma(left, right[j], accumulator[i][j]);
      }
      offset += s.a_step;
      b_row += s.b_step;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < tile_rows; ++i) {
    if (i >= rows) break;
    finish_row<vectors>(accumulator[i], c[i], columns, epilogue);
  }
}

// As many registers as `columns` need: narrow matrices do not pay for a wide tile.
template <class T>
CR_INLINE void multiply_tile(const T* const* a, const T* b, T* const* c, int rows, int64_t columns,
                             const Segments& s, const Epilogue<T>& epilogue) {
  switch (ceil_div(columns, Vec<T>::width)) {
    case 1:
      return multiply_tile<1>(a, b, c, rows, columns, s, epilogue);
    case 2:
      return multiply_tile<2>(a, b, c, rows, columns, s, epilogue);
    case 3:
      if constexpr (tile_vectors > 2) {
        return multiply_tile<3>(a, b, c, rows, columns, s, epilogue);
      }
      [[fallthrough]];
    default:
      if constexpr (tile_vectors > 2) {
        return multiply_tile<4>(a, b, c, rows, columns, s, epilogue);
      }
  }
}

// A packed matrix of `depth` rows and `columns` columns: slivers of tile_columns, one behind the
// other, the last one only as wide as it must be.
template <class T>
struct Packed {
  int64_t depth, columns;

  int64_t slivers() const { return ceil_div(columns, tile_columns<T>); }
  int64_t sliver_columns(int64_t sliver) const {
    return smaller(tile_columns<T>, columns - sliver * tile_columns<T>);
  }
  int64_t sliver_step(int64_t sliver) const {
    return round_up(sliver_columns(sliver), Vec<T>::width);
  }
  int64_t sliver_offset(int64_t sliver) const { return sliver * tile_columns<T> * depth; }
  int64_t size() const { return depth * round_up(columns, Vec<T>::width); }
};

// Rows [first, first + count) of one sliver, from a matrix stored as it is (row k at
// source + k * stride) or transposed (column j at source + j * stride).
template <class T>
void pack_sliver(const T* source, int64_t stride, bool transposed, const Packed<T>& packed,
                 int64_t sliver, int64_t first, int64_t count, T* target) {
  const int64_t columns = packed.sliver_columns(sliver);
  const int64_t step = packed.sliver_step(sliver);
  T* row = target + packed.sliver_offset(sliver) + first * step;
  const int64_t left = sliver * tile_columns<T>;
  if (!transposed) {
    for (int64_t k = 0; k < count; ++k, row += step) {
      const T* from = source + k * stride + left;
      for (int64_t j = 0; j < columns; ++j) row[j] = from[j];
      for (int64_t j = columns; j < step; ++j) row[j] = T(0);
    }
    return;
  }
  // A square of registers at a time: transposed there, it is read and written in whole lines.
  constexpr int width = Vec<T>::width;
  for (int64_t j = 0; j < step; j += width) {
    const int64_t real = smaller(width, columns - j);
    const T* const from = source + (left + j) * stride;
    for (int64_t k = 0; k < count; k += width) {
      const int64_t run = smaller(width, count - k);
      Vec<T> square[width];
#pragma GCC unroll 16
      for (int i = 0; i < width; ++i) {
        if (i >= real) square[i] = Vec<T>::zero();
        else if (run == width) square[i] = Vec<T>::load(from + i * stride + k);
        else square[i] = Vec<T>::load(from + i * stride + k, run, T(0));
      }
      transpose<T>(square);
#pragma GCC unroll 16
      for (int i = 0; i < width; ++i) {
        if (i < run) square[i].store(row + (k + i) * step + j);
      }
    }
  }
}

// The loops around the tile, for c (m, n) = a (m, k) · b (k, n), with one epilogue.
template <class T>
struct Product {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_step;  // element (i, k) of a is a[i * a_row + k * a_step]
  const T* b;
  int64_t b_stride;
  bool b_transposed;
  T* c;
  const T* bias = nullptr;
  bool rectify = false;

  // A block of a (block_rows x depth) stays in the second-level cache with one sliver of b (80 kB
  // in float32 with AVX-512); of a narrow b all slivers do, so it is cut less often. The depth is
  // cut evenly, lest the last block be too thin to pay for a pass over c: 784 is 262, 262 and 260.
  static constexpr int64_t least_depth = 320, most_depth = 1024, panel_bytes = 512 << 10;
  static int64_t depth_of_block(int64_t n, int64_t k) {
    const int64_t fit = panel_bytes / (larger(1, n) * static_cast<int64_t>(sizeof(T)));
    const int64_t most = smaller(most_depth, larger(least_depth, fit));
    return ceil_div(k, larger(1, ceil_div(k, most)));
  }
  static constexpr int64_t block_rows = 8 * tile_rows;
  static constexpr int64_t block_slivers = 4;
  // Few blocks are made smaller: three would keep two threads busy for the time of four.
  int64_t rows_of_block() const {
    const int64_t blocks = ceil_div(m, block_rows) * ceil_div(n, block_slivers * tile_columns<T>);
    return blocks >= 8 ? block_rows : 2 * tile_rows;
  }
  // Rows of a that are a multiple of this apart fall into few sets of the first-level cache; such
  // a block is copied first, to rows that are not.
  static constexpr int64_t aliasing_bytes = 1024;
  static constexpr int64_t copy_row = most_depth + 16, copy_column = block_rows + 16;

  bool copies_a() const {
    const int64_t distance = a_step == 1 ? a_row : a_step;
    return n > tile_columns<T> && distance * static_cast<int64_t>(sizeof(T)) % aliasing_bytes == 0;
  }

  static constexpr int64_t copy_size() {
    return larger(block_rows * copy_row, most_depth * copy_column);
  }

  static int64_t panel_size(int64_t n, int64_t k) {
    return round_up(Packed<T>{depth_of_block(n, k), n}.size(), 16);
  }

  static int64_t workspace(int64_t n, int64_t k, int workers) {
    return (panel_size(n, k) + workers * copy_size()) * static_cast<int64_t>(sizeof(T));
  }

  void run(const Workspace& workspace) const {
    T* const panel = static_cast<T*>(workspace.data);
    T* const copies = panel + panel_size(n, k);
    const bool copy = copies_a();
    const int64_t most = depth_of_block(n, k);
    int64_t first = 0;
    do {  // once even for k = 0, whose product is zero
      const int64_t depth = smaller(most, k - first);
      const Packed<T> packed{depth, n};
      parallel(packed.slivers(), depth * n, workspace.workers, [&](int64_t sliver, int) {
        const T* const source = b + (b_transposed ? first : first * b_stride);
        pack_sliver(source, b_stride, b_transposed, packed, sliver, 0, depth, panel);
      });
      const int64_t row_blocks = ceil_div(m, rows_of_block());
      const int64_t sliver_blocks = ceil_div(packed.slivers(), block_slivers);
      const int64_t cycles = m * n * depth / Vec<T>::width / 2;
      parallel(row_blocks * sliver_blocks, cycles, workspace.workers,
               [&](int64_t index, int worker) {
                 block(packed, panel, first, index % row_blocks * rows_of_block(),
                       index / row_blocks * block_slivers,
                       copy ? copies + worker * copy_size() : nullptr);
               });
      first += most;
    } while (first < k);
  }

 private:
  void block(const Packed<T>& packed, const T* panel, int64_t first, int64_t top, int64_t sliver,
             T* copy) const {
    const int64_t rows = smaller(rows_of_block(), m - top);
    const T* source = a + top * a_row + first * a_step;
    int64_t row_stride = a_row, step = a_step;
    if (copy) {
      if (a_step == 1) {
        row_stride = copy_row;
        for (int64_t i = 0; i < rows; ++i)
          copy_run(copy + i * copy_row, source + i * a_row, packed.depth);
      } else {
        row_stride = 1;
        step = copy_column;
        for (int64_t l = 0; l < packed.depth; ++l) {
          for (int64_t i = 0; i < rows; ++i) {
            copy[l * copy_column + i] = source[i * a_row + l * a_step];
          }
        }
      }
      source = copy;
    }
    const int64_t last = smaller(sliver + block_slivers, packed.slivers());
    for (; sliver < last; ++sliver) {
      const int64_t left = sliver * tile_columns<T>;
      const int64_t b_step = packed.sliver_step(sliver);
      const Segments segments{1, packed.depth, step, 0, b_step, 0};
      Epilogue<T> epilogue;
      epilogue.accumulate = first > 0;
      if (first + packed.depth == k) {
        epilogue.bias = bias ? bias + left : nullptr;
        epilogue.rectify = rectify;
      }
      for (int64_t i = 0; i < rows; i += tile_rows) {
        const int tile = static_cast<int>(smaller(tile_rows, rows - i));
        const T* a_rows[tile_rows];
        T* c_rows[tile_rows];
        for (int r = 0; r < tile_rows; ++r) {
          const int64_t row = i + smaller(r, tile - 1);
          a_rows[r] = source + row * row_stride;
          c_rows[r] = c + (top + row) * n + left;
        }
        multiply_tile(a_rows, panel + packed.sliver_offset(sliver), c_rows, tile,
                      packed.sliver_columns(sliver), segments, epilogue);
      }
    }
  }

  static void copy_run(T* target, const T* source, int64_t n) {
    for (int64_t i = 0; i < n; ++i) target[i] = source[i];
  }
};

// target[j] = Σ_i source[i * columns + j], rows in order: the gradient of a bias.
template <class T>
void sum_rows(const T* source, int64_t rows, int64_t columns, T* target) {
  using V = Vec<T>;
  parallel_ranges(columns, V::width, larger(1, rows / V::width), [&](int64_t begin, int64_t end) {
    V total = V::zero();
    if (end - begin == V::width) {
      for (int64_t i = 0; i < rows; ++i) total = total + V::load(source + i * columns + begin);
      total.store(target + begin);
    } else {
      for (int64_t i = 0; i < rows; ++i) {
        total = total + V::load(source + i * columns + begin, end - begin, T(0));
      }
      total.store(target + begin, end - begin);
    }
  });
}

}  // namespace chainrule::CR_ISA
