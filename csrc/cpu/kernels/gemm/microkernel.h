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
  bool relu = false;
};

// One row of a finished tile.
template <int vectors, class T>
CR_INLINE void finish_row(const Vec<T>* row, T* c, int64_t columns, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int width = V::width;
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) {
    const int64_t left = columns - j * width;
    T* const target = c + j * width;
    V value = row[j];
    if (left >= width) {
      if (epilogue.accumulate) value = value + V::load(target);
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width);
      if (epilogue.relu) value = select(value <= V::zero(), V::zero(), value);
      value.store(target);
    } else if (left > 0) {
      if (epilogue.accumulate) value = value + V::load(target, left, T(0));
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width, left, T(0));
      if (epilogue.relu) value = select(value <= V::zero(), V::zero(), value);
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
    for (int j = 0; j < vectors; ++j) {
      accumulator[i][j] = V::zero();
      // By the time it is written it has come: 4 % of a product of 1024 rows, 8 % of 4096 x 4096
      // sums over 128, together with fewer passes over c (product.h).
      __builtin_prefetch(c[i] + j * width, 1);
    }
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

// A packed matrix of `depth` rows and `columns` columns: slivers of `wide`, one behind the other,
// the last one only as wide as it must be.
template <class T>
struct Packed {
  int64_t depth, columns;
  int64_t wide = tile_columns<T>;

  int64_t slivers() const { return ceil_div(columns, wide); }
  int64_t sliver_columns(int64_t sliver) const { return smaller(wide, columns - sliver * wide); }
  int64_t sliver_step(int64_t sliver) const {
    return round_up(sliver_columns(sliver), Vec<T>::width);
  }
  int64_t sliver_offset(int64_t sliver) const { return sliver * wide * depth; }
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
  const int64_t left = sliver * packed.wide;
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
    const T* const from = source + (left + j) * stride;
    int64_t k = 0;
    if (j + width <= columns) {
      for (; k + width <= count; k += width) {
        Vec<T> square[width];
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i) square[i] = Vec<T>::load(from + i * stride + k);
        transpose<T>(square);
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i) square[i].store(row + (k + i) * step + j);
      }
    }
    for (; k < count; ++k) {
      for (int64_t i = 0; i < width; ++i) {
        row[k * step + j + i] = j + i < columns ? from[i * stride + k] : T(0);
      }
    }
  }
}

}  // namespace chainrule::CR_ISA
