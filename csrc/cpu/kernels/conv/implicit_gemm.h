// Implicit GEMM of one image, without im2col. Each window position is a row of a, each filter a
// column of b. The microkernel reads the pixels under the window in place. Forward convolution uses
// this. Backward input uses it too, with the gradient as the image.
#pragma once

#include "cpu/kernels/gemm/packing.h"

namespace chainrule::CR_ISA {

struct ImageShape {
  int64_t height, width, channels;
};

// Copies a rectangle of `rows` x `columns` pixels, whose first pixel is (top, left). Pixels outside
// the image become zero. The inner loops then need no test for the border.
template <class T>
void copy_padded(const T* image, const ImageShape& s, int64_t top, int64_t left, int64_t rows,
                 int64_t columns, T* target) {
  const int64_t first = max(0, min(columns, -left));
  const int64_t last = max(first, min(columns, s.width - left));
  for (int64_t row = 0; row < rows; ++row, target += columns * s.channels) {
    const int64_t y = top + row;
    const bool inside = y >= 0 && y < s.height;
    const int64_t begin = inside ? first * s.channels : 0;
    const int64_t end = inside ? last * s.channels : 0;
    const int64_t total = columns * s.channels;
    for (int64_t i = 0; i < begin; ++i) target[i] = T(0);
    if (end > begin) {
      const T* const from = image + (y * s.width + left + first) * s.channels;
      for (int64_t i = begin; i < end; ++i) target[i] = from[i - begin];
    }
    for (int64_t i = end; i < total; ++i) target[i] = T(0);
  }
}

// Output (i, j) has i in [0, out_rows) and j in [0, out_columns). The first pixel of its window is
// (top + i * stride_rows, left + j * stride_columns). The output is stored at
// target + i * output_row_stride + j * output_column_stride.
template <class T>
struct ImplicitGemm {
  ImageShape image;
  int64_t window_rows, window_columns;
  int64_t top, left, stride_rows, stride_columns;
  int64_t out_rows, out_columns;
  int64_t output_row_stride, output_column_stride;
  PackedMatrix<T> filters;  // (window_rows, window_columns, channels) x outputs
  const T* bias = nullptr;
  bool relu = false;

  // A task computes a band of output rows. It has enough pixels to amortize loading the filters
  // into the cache. It is small enough that one large image still occupies all threads.
  static constexpr int64_t band_pixels = 512;
  int64_t band_rows() const {
    return min(max(1, out_rows), max(1, band_pixels / max(1, out_columns)));
  }

  int64_t input_columns() const { return (out_columns - 1) * stride_columns + window_columns; }
  int64_t input_rows(int64_t rows) const { return (rows - 1) * stride_rows + window_rows; }

  bool needs_padding() const {
    return top < 0 || left < 0 || top + input_rows(out_rows) > image.height ||
           left + input_columns() > image.width;
  }
  // Elements of the padded copy of the input of `rows` output rows. 0 if no window crosses the
  // border.
  int64_t copy_size(int64_t rows) const {
    if (!needs_padding()) return 0;
    return round_up(input_rows(rows) * input_columns() * image.channels, 16);
  }

  // Computes rows [first, first + rows) of the output of one image. Row `first` is stored at
  // target.
  void run(const T* source, int64_t first, int64_t rows, const T* packed, T* target,
           T* copy) const {
    const int64_t corner = top + first * stride_rows;
    const bool padded = needs_padding();
    const int64_t row_stride = (padded ? input_columns() : image.width) * image.channels;
    if (padded) {
      copy_padded(source, image, corner, left, input_rows(rows), input_columns(), copy);
    }
    const T* const pixels = padded ? copy : source + corner * row_stride + left * image.channels;
    // A group of window rows at a time. Its part of a panel of filters then stays in the L2 cache
    // for all pixels of the band.
    const int64_t row_length = window_columns * image.channels;
    const int64_t group = max(1, 1024 / max(1, row_length));
    for (int64_t panel = 0; panel < filters.panels(); ++panel) {
      const int64_t step = filters.panel_stride(panel);
      const T* b = packed + filters.panel_offset(panel);
      int64_t first_window_row = 0;
      do {  // once even for a window without rows, whose result is zero
        const int64_t count = min(group, window_rows - first_window_row);
        const Segments segments{count, row_length, 1, row_stride, step, row_length * step};
        Epilogue<T> epilogue;
        epilogue.accumulate = first_window_row > 0;
        if (first_window_row + count == window_rows) {
          epilogue.bias = bias ? bias + panel * tile_columns<T> : nullptr;
          epilogue.relu = relu;
        }
        multiply_panel(pixels + first_window_row * row_stride, row_stride, rows,
                       b + first_window_row * row_length * step, target + panel * tile_columns<T>,
                       filters.panel_columns(panel), segments, epilogue);
        first_window_row += count;
      } while (first_window_row < window_rows);
    }
  }

 private:
  void multiply_panel(const T* pixels, int64_t row_stride, int64_t rows, const T* b, T* target,
                      int64_t outputs, const Segments& segments,
                      const Epilogue<T>& epilogue) const {
    const int64_t total = rows * out_columns;
    const int64_t pixel_row = stride_rows * row_stride, pixel = stride_columns * image.channels;
    if (outputs <= narrow_vectors * Vec<T>::width) {
      const NarrowGemm<T> narrow(out_columns, outputs);
      for (int64_t row = 0; row < rows; ++row) {
        narrow.multiply({pixels + row * pixel_row, pixel, 3 * pixel, b,
                         target + row * output_row_stride, output_column_stride, outputs},
                        segments, epilogue);
      }
      return;
    }
    int64_t i = 0, j = 0;
    for (int64_t position = 0; position < total; position += tile_rows) {
      const int tile = static_cast<int>(min(tile_rows, total - position));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile; ++r) {
        a_rows[r] = pixels + i * pixel_row + j * pixel;
        c_rows[r] = target + i * output_row_stride + j * output_column_stride;
        if (++j == out_columns) {
          j = 0;
          ++i;
        }
      }
      for (int r = tile; r < tile_rows; ++r) {
        a_rows[r] = a_rows[tile - 1];
        c_rows[r] = c_rows[tile - 1];
      }
      microkernel(a_rows, b, c_rows, tile, outputs, segments, epilogue);
    }
  }
};

}  // namespace chainrule::CR_ISA
