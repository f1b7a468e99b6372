// A window slides over one image, and every position is a dot product with each filter: the
// product of gemm.h, whose rows of `a` are the pixels under the window where they lie. Forward
// convolution is this, and so is backward-input, with the gradient as the image.
#pragma once

#include "cpu/kernels/gemm/packing.h"

namespace chainrule::CR_ISA {

struct Image {
  int64_t height, width, channels;
};

// Copies the rectangle of `rows` x `columns` pixels whose corner is (top, left); what lies outside
// the image is zero. With the borders laid out, the inner loops need no test for them.
template <class T>
void copy_rectangle(const T* image, const Image& s, int64_t top, int64_t left, int64_t rows,
                    int64_t columns, T* target) {
  const int64_t first = larger(0, smaller(columns, -left));
  const int64_t last = larger(first, smaller(columns, s.width - left));
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

// Output position (i, j), for i in [0, out_rows) and j in [0, out_columns), is the window whose
// corner is pixel (top + i * step_rows, left + j * step_columns), and is written at
// target + i * target_row + j * target_column.
template <class T>
struct Correlation {
  Image image;
  int64_t window_rows, window_columns;
  int64_t top, left, step_rows, step_columns;
  int64_t out_rows, out_columns;
  int64_t target_row, target_column;
  Packed<T> filters;  // (window_rows, window_columns, channels) x outputs
  const T* bias = nullptr;
  bool relu = false;

  // Rows of output that one task makes: enough pixels to pay for a filter's way into the cache,
  // few enough that one large image still keeps all threads busy.
  static constexpr int64_t band_pixels = 512;
  int64_t band_rows() const {
    return smaller(larger(1, out_rows), larger(1, band_pixels / larger(1, out_columns)));
  }
  int64_t bands() const { return ceil_div(out_rows, band_rows()); }

  int64_t columns_seen() const { return (out_columns - 1) * step_columns + window_columns; }
  int64_t rows_seen(int64_t rows) const { return (rows - 1) * step_rows + window_rows; }

  bool reaches_outside() const {
    return top < 0 || left < 0 || top + rows_seen(out_rows) > image.height ||
           left + columns_seen() > image.width;
  }
  // Elements of the copy that `rows` of output want of their pixels when windows reach over the
  // border.
  int64_t copy_size(int64_t rows) const {
    if (!reaches_outside()) return 0;
    return round_up(rows_seen(rows) * columns_seen() * image.channels, 16);
  }

  // Rows [first, first + rows) of the output of one image; `target` is where the first goes.
  void run(const T* source, int64_t first, int64_t rows, const T* packed, T* target,
           T* copy) const {
    const int64_t corner = top + first * step_rows;
    const bool outside = reaches_outside();
    const int64_t row_stride = (outside ? columns_seen() : image.width) * image.channels;
    if (outside) {
      copy_rectangle(source, image, corner, left, rows_seen(rows), columns_seen(), copy);
    }
    const T* const pixels = outside ? copy : source + corner * row_stride + left * image.channels;
    // A group of window rows at a time, so that its part of a sliver of the filters stays in the
    // second-level cache while all pixels of the band pass by.
    const int64_t run_length = window_columns * image.channels;
    const int64_t group = larger(1, 1024 / larger(1, run_length));
    for (int64_t sliver = 0; sliver < filters.slivers(); ++sliver) {
      const int64_t step = filters.sliver_step(sliver);
      const T* b = packed + filters.sliver_offset(sliver);
      int64_t done = 0;
      do {  // once even for a window of no rows, whose result is zero
        const int64_t count = smaller(group, window_rows - done);
        const Segments segments{count, run_length, 1, row_stride, step, run_length * step};
        Epilogue<T> epilogue;
        epilogue.accumulate = done > 0;
        if (done + count == window_rows) {
          epilogue.bias = bias ? bias + sliver * tile_columns<T> : nullptr;
          epilogue.relu = relu;
        }
        positions(pixels + done * row_stride, row_stride, rows, b + done * run_length * step,
                  target + sliver * tile_columns<T>, filters.sliver_columns(sliver), segments,
                  epilogue);
        done += count;
      } while (done < window_rows);
    }
  }

 private:
  void positions(const T* pixels, int64_t row_stride, int64_t rows, const T* b, T* target,
                 int64_t outputs, const Segments& segments, const Epilogue<T>& epilogue) const {
    const int64_t total = rows * out_columns;
    const int64_t pixel_row = step_rows * row_stride, pixel = step_columns * image.channels;
    if (outputs <= strip_vectors * Vec<T>::width) {
      const Strips<T> strips(out_columns, outputs);
      for (int64_t row = 0; row < rows; ++row) {
        strips.multiply({pixels + row * pixel_row, pixel, 3 * pixel, b, target + row * target_row,
                         target_column, outputs},
                        segments, epilogue);
      }
      return;
    }
    int64_t i = 0, j = 0;
    for (int64_t position = 0; position < total; position += tile_rows) {
      const int tile = static_cast<int>(smaller(tile_rows, total - position));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile; ++r) {
        a_rows[r] = pixels + i * pixel_row + j * pixel;
        c_rows[r] = target + i * target_row + j * target_column;
        if (++j == out_columns) {
          j = 0;
          ++i;
        }
      }
      for (int r = tile; r < tile_rows; ++r) {
        a_rows[r] = a_rows[tile - 1];
        c_rows[r] = c_rows[tile - 1];
      }
      multiply_tile(a_rows, b, c_rows, tile, outputs, segments, epilogue);
    }
  }
};

}  // namespace chainrule::CR_ISA
