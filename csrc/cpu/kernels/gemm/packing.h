// Packing of the right operand of a product for the microkernel.
#pragma once

#include "cpu/kernels/gemm/microkernel.h"

namespace chainrule::CR_ISA {

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
