// Implicit GEMM of one image, without im2col. Each window position is a row of a, each filter a
// column of b. The microkernel reads the pixels under the window in place. Forward convolution uses
// this. Backward input uses it too, with the gradient as the image.
#pragma once

#include "cpu/kernels/gemm/packing.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

struct ImageShape {
  int64_t height, width, channels;
};

// Sets target[0, total) to zero, but [begin, end) to from[0, end - begin).
template <class T>
CR_INLINE void copy_between_zeros(const T* from, int64_t begin, int64_t end, int64_t total,
                                  T* target) {
  if (total <= row_part) {
    for (int64_t i = 0; i < begin; ++i) target[i] = T(0);
    for (int64_t i = begin; i < end; ++i) target[i] = from[i - begin];
    for (int64_t i = end; i < total; ++i) target[i] = T(0);
    return;
  }
  fill_zero(target, begin);
  if (end > begin) {
    T* const to = target + begin;
    for_each_row_part(end - begin, [=](int64_t start, int64_t stop) {
      for (int64_t i = start; i < stop; ++i) to[i] = from[i];
    });
  }
  fill_zero(target + end, total - end);
}

// Copies a rectangle of `rows` x `columns` pixels, whose first pixel is (top, left). Pixels outside
// the image become zero. The inner loops then need no test for the border.
template <class T>
void copy_padded(const T* image, const ImageShape& s, int64_t top, int64_t left, int64_t rows,
                 int64_t columns, T* target) {
  const int64_t first = max(0, min(columns, -left));
  const int64_t last = max(first, min(columns, s.width - left));
  const int64_t total = columns * s.channels;
  int64_t copied = 0;
  for (int64_t row = 0; row < rows; ++row, target += total) {
    copied += total;
    if (copied >= row_part) {
      if (!keep_going(copied / Vec<T>::width)) return;
      copied = 0;
    }
    const int64_t y = top + row;
    const bool inside = y >= 0 && y < s.height;
    const int64_t begin = inside ? first * s.channels : 0;
    const int64_t end = inside ? last * s.channels : 0;
    const T* const from = end > begin ? image + (y * s.width + left + first) * s.channels : nullptr;
    copy_between_zeros(from, begin, end, total, target);
  }
}

// One axis of the windows of a convolution. A copy of the padded input holds the pixels under all
// windows. If the stride is longer than the window, it leaves out the pixels between them. The copy
// is then at most as large as the windows together, whatever the stride and the padding.
struct WindowAxis {
  int64_t window, stride, count;  // pixels, pixels, windows

  bool has_gaps() const { return stride > window; }
  // From one window to the next in the copy.
  int64_t copy_stride() const { return has_gaps() ? window : stride; }
  int64_t copy_length() const { return (count - 1) * copy_stride() + window; }
  // The distance of a pixel of the copy from the first one, in the image.
  int64_t image_offset(int64_t i) const {
    return has_gaps() ? i / window * stride + i % window : i;
  }
  // The inverse, or -1 for a pixel that is not in the copy.
  int64_t copy_offset(int64_t distance) const {
    if (!has_gaps()) return distance < copy_length() ? distance : -1;
    const int64_t i = distance / stride, in_window = distance % stride;
    return i < count && in_window < window ? i * window + in_window : -1;
  }
};

// Copies the pixels under all windows. The first pixel of the first window is (top, left).
template <class T>
void copy_windows(const T* image, const ImageShape& s, int64_t top, int64_t left,
                  const WindowAxis& rows, const WindowAxis& columns, T* target) {
  if (!rows.has_gaps() && !columns.has_gaps()) {
    return copy_padded(image, s, top, left, rows.copy_length(), columns.copy_length(), target);
  }
  const int64_t length = columns.has_gaps() ? columns.window : columns.copy_length();
  for (int64_t row = 0; row < rows.copy_length(); ++row) {
    const int64_t y = top + rows.image_offset(row);
    for (int64_t column = 0; column < columns.copy_length(); column += length) {
      if (!keep_going(length * s.channels)) return;
      copy_padded(image, s, y, left + columns.image_offset(column), 1, length, target);
      target += length * s.channels;
    }
  }
}

// The inverse: sets the pixels of an image to those of such a copy, or to zero.
template <class T>
void copy_from_windows(const T* copy, const WindowAxis& rows, const WindowAxis& columns,
                       int64_t pad_top, int64_t pad_left, const ImageShape& s, T* image) {
  if (!rows.has_gaps() && !columns.has_gaps()) {
    const ImageShape copied{rows.copy_length(), columns.copy_length(), s.channels};
    return copy_padded(copy, copied, pad_top, pad_left, s.height, s.width, image);
  }
  for (int64_t y = 0; y < s.height; ++y) {
    const int64_t row = rows.copy_offset(y + pad_top);
    for (int64_t x = 0; x < s.width; ++x, image += s.channels) {
      if (x % row_part == 0 && !keep_going(min(row_part, s.width))) return;
      const int64_t column = columns.copy_offset(x + pad_left);
      const T* const from = copy + (row * columns.copy_length() + column) * s.channels;
      const bool covered = row >= 0 && column >= 0;
      for (int64_t c = 0; c < s.channels; ++c) image[c] = covered ? from[c] : T(0);
    }
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
    return round_up(row_axis(rows).copy_length() * column_axis().copy_length() * image.channels,
                    16);
  }
  WindowAxis row_axis(int64_t rows) const { return {window_rows, stride_rows, rows}; }
  WindowAxis column_axis() const { return {window_columns, stride_columns, out_columns}; }

  // Elements of the scratch memory: the copy, and the subtotals of a long window.
  int64_t scratch_size(int64_t rows) const {
    if (parts() <= max_parts) return copy_size(rows);
    const int64_t levels = Subtotals<T>::levels(ceil_div(parts(), max_parts));
    return copy_size(rows) + (1 + levels) * round_up(subtotals_step(rows), 16);
  }

  // Computes rows [first, first + rows) of the output of one image. Row `first` is stored at
  // target.
  void run(const T* source, int64_t first, int64_t rows, const T* packed, T* target,
           T* copy) const {
    const int64_t corner = top + first * stride_rows;
    const bool padded = needs_padding();
    const WindowAxis down = row_axis(rows), across = column_axis();
    const int64_t row_stride = (padded ? across.copy_length() : image.width) * image.channels;
    if (padded) copy_windows(source, image, corner, left, down, across, copy);
    const Source from{padded ? copy : source + corner * row_stride + left * image.channels,
                      row_stride, (padded ? down.copy_stride() : stride_rows) * row_stride,
                      (padded ? across.copy_stride() : stride_columns) * image.channels};
    for (int64_t panel = 0; panel < filters.panels(); ++panel) {
      const T* const b = packed + filters.panel_offset(panel);
      T* const to = target + panel * tile_columns<T>;
      if (parts() > max_parts) {
        run_in_subtotals(from, rows, b, panel, to, copy + copy_size(rows));
        continue;
      }
      for (int64_t index = 0; index < parts(); ++index) {
        const bool last = index + 1 == parts();
        multiply_part(index, index > 0, last ? bias : nullptr, last && relu, from, rows, b, panel,
                      to);
      }
    }
  }

 private:
  // The pixels under the windows, in the image or in its padded copy. Strides are in elements.
  struct Source {
    const T* pixels;
    int64_t row_stride;    // from one row of pixels to the next
    int64_t down, across;  // from one window to the next
  };

  // The terms of a window are added in parts: a group of window rows, or a piece of one row if it
  // is longer. The part of a panel of filters stays in the L2 cache for all pixels of the band.
  static constexpr int64_t group_terms = 1024, piece_terms = 2048, max_parts = 1024;
  int64_t row_length() const { return window_columns * image.channels; }
  int64_t group_rows() const { return max(1, group_terms / max(1, row_length())); }
  int64_t pieces() const { return max(1, ceil_div(row_length(), piece_terms)); }
  // At least one: a window without rows has the result zero.
  int64_t parts() const { return max(1, ceil_div(window_rows, group_rows()) * pieces()); }

  // Computes one part for a panel of filters.
  void multiply_part(int64_t index, bool accumulate, const T* add_bias, bool apply_relu,
                     const Source& source, int64_t rows, const T* b, int64_t panel,
                     T* target) const {
    const int64_t step = filters.panel_stride(panel), length = row_length();
    const int64_t row = index / pieces() * group_rows(), piece = index % pieces();
    const int64_t first = piece * length / pieces();
    const Segments segments{min(group_rows(), window_rows - row),
                            (piece + 1) * length / pieces() - first,
                            1,
                            source.row_stride,
                            step,
                            length * step};
    Epilogue<T> epilogue;
    epilogue.accumulate = accumulate;
    epilogue.bias = add_bias ? add_bias + panel * tile_columns<T> : nullptr;
    epilogue.relu = apply_relu;
    multiply_panel(source, row * source.row_stride + first, rows, b + (row * length + first) * step,
                   target, filters.panel_columns(panel), segments, epilogue);
  }

  // A window of more than a million terms. After max_parts its sums are a subtotal.
  int64_t subtotals_step(int64_t rows) const { return rows * out_columns * tile_columns<T>; }
  void run_in_subtotals(const Source& source, int64_t rows, const T* b, int64_t panel, T* target,
                        T* scratch) const {
    const int64_t step = subtotals_step(rows);
    const Subtotals<T> subtotals(scratch + step, step);
    ImplicitGemm to_scratch = *this;
    to_scratch.output_row_stride = out_columns * tile_columns<T>;
    to_scratch.output_column_stride = tile_columns<T>;
    int64_t pushed = 0;
    for (int64_t index = 0; index < parts(); ++index) {
      const bool first = index % max_parts == 0;
      if (first && index > 0) subtotals.push(pushed++, scratch, 0, step);
      to_scratch.multiply_part(index, !first, nullptr, false, source, rows, b, panel, scratch);
    }
    subtotals.add_to(pushed, scratch, 0, step);
    for (int64_t pixel = 0; pixel < rows * out_columns; ++pixel) {
      T* const to = target + pixel / out_columns * output_row_stride +
                    pixel % out_columns * output_column_stride;
      for_each_vector<T>(filters.panel_columns(panel), [&](int64_t k, auto lanes) {
        Vec<T> value = lanes.load(scratch + pixel * tile_columns<T> + k);
        if (bias) value = value + lanes.load(bias + panel * tile_columns<T> + k);
        if (relu) value = select(value <= Vec<T>::zero(), Vec<T>::zero(), value);
        lanes.store(value, to + k);
      });
    }
  }

  // `offset` is that of the part in each window.
  void multiply_panel(const Source& source, int64_t offset, int64_t rows, const T* b, T* target,
                      int64_t outputs, const Segments& segments,
                      const Epilogue<T>& epilogue) const {
    const T* const pixels = source.pixels + offset;
    const int64_t pixel_row = source.down, pixel = source.across;
    const int64_t total = rows * out_columns;
    const int64_t cycles = max(1, segments.count * segments.length);  // per pixel
    if (outputs <= narrow_vectors * Vec<T>::width) {
      // The height of the tiles depends on the whole row, and so do the bits.
      const NarrowGemm<T> narrow(out_columns, outputs);
      for (int64_t row = 0; row < rows; ++row) {
        if (!keep_going(out_columns * cycles)) return;
        narrow.multiply({pixels + row * pixel_row, pixel, 3 * pixel, b,
                         target + row * output_row_stride, output_column_stride, outputs},
                        segments, epilogue);
      }
      return;
    }
    int64_t i = 0, j = 0;
    const int64_t pixels_per_part = max(1, min(band_pixels, row_part / cycles));
    int64_t next_part = 0;
    for (int64_t position = 0; position < total; position += tile_rows) {
      if (position >= next_part) {
        if (!keep_going(pixels_per_part * cycles)) return;
        next_part = position + pixels_per_part;
      }
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
