// Packing of the right operand of a GEMM for the microkernel.
#pragma once

#include "cpu/kernels/gemm/microkernel.h"

namespace chainrule::CR_ISA {

// The layout of a packed matrix of depth x columns: panels of `panel_width` columns, one after the
// other. In a panel each row is contiguous and padded with zeros to full vectors. The last panel
// has only as many vectors per row as its columns need.
template <class T>
struct PackedMatrix {
  int64_t depth, columns;
  int64_t panel_width = tile_columns<T>;

  int64_t panels() const { return ceil_div(columns, panel_width); }
  int64_t panel_columns(int64_t panel) const {
    return min(panel_width, columns - panel * panel_width);
  }
  // From one row of a panel to the next.
  int64_t panel_stride(int64_t panel) const {
    return round_up(panel_columns(panel), Vec<T>::width);
  }
  int64_t panel_offset(int64_t panel) const { return panel * panel_width * depth; }
  int64_t size() const { return depth * round_up(columns, Vec<T>::width); }
};

// Packs rows [first, first + count) of one panel. Row k of the source is at source + k * stride. If
// the source is transposed, column j is at source + j * stride.
template <class T>
void pack_panel(const T* source, int64_t stride, bool transposed, const PackedMatrix<T>& packed,
                int64_t panel, int64_t first, int64_t count, T* target) {
  const int64_t columns = packed.panel_columns(panel);
  const int64_t step = packed.panel_stride(panel);
  T* row = target + packed.panel_offset(panel) + first * step;
  const int64_t left = panel * packed.panel_width;
  if (!transposed) {
    for (int64_t k = 0; k < count; ++k, row += step) {
      const T* from = source + k * stride + left;
      for (int64_t j = 0; j < columns; ++j) row[j] = from[j];
      for (int64_t j = columns; j < step; ++j) row[j] = T(0);
    }
    return;
  }
  // A square of vectors is transposed in registers, so that it is read and written in whole cache
  // lines.
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
