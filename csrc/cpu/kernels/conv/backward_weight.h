// The weight gradient of a convolution as an implicit GEMM. Its rows are (r, s, c), its columns are
// filters, and its sum runs over the pixels of an image, which are read in place.
#pragma once

#include "cpu/kernels/conv/convolution.h"
#include "cpu/kernels/conv/image_split.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

// The split of the work of backward weight. The images are split into chunks, and the (r, s, c)
// rows into groups. The split, and therefore the bits, depend on the shape only.
template <class T>
struct BackwardWeightSplit {
  int64_t rows, columns;
  ImageSplit images;
  int64_t groups, group_rows, gradient_stride, copy_size, pack_size;
  // A step adds the pixels of a band of rows, or of a part of one row if it is longer than
  // step_columns. After max_steps the sums of a chunk are a subtotal.
  static constexpr int64_t band_pixels = 256, max_steps = 256;
  int64_t band, step_columns;
  int64_t levels;  // buffers of subtotals

  explicit BackwardWeightSplit(const Conv2d& s)
      : rows(s.window.rows * s.window.columns * s.in),
        columns(round_up(s.out, Vec<T>::width)),
        images(s.batch, rows * columns * static_cast<int64_t>(sizeof(T))) {
    groups = ceil_div(ImageSplit::max_chunks, images.chunks);
    groups = max(1, min(groups, rows / (8 * tile_rows)));
    group_rows = round_up(ceil_div(max(1, rows), groups), tile_rows);
    groups = ceil_div(max(1, rows), group_rows);
    gradient_stride = columns;
    const ImplicitGemm<T> gemm = forward_gemm<T>(s);
    copy_size = s.batch > 0 && gemm.needs_padding() ? gemm.copy_size(s.out_height) : 0;
    pack_size =
        s.batch == 0 || columns == s.out ? 0 : round_up(s.out_height * s.out_width * columns, 16);
    band = max(1, band_pixels / max(1, s.out_width));
    step_columns = max(1, ceil_div(s.out_width, max(1, ceil_div(s.out_width, max_part_terms))));
    const int64_t steps =
        images.max_images() * ceil_div(s.out_height, band) * ceil_div(s.out_width, step_columns);
    levels = Subtotals<T>::levels(ceil_div(steps, max_steps));
  }
  // The partial sums of the weights, then those of the bias.
  int64_t partial_size() const { return round_up((rows + 1) * columns, 16); }
  int64_t workspace_size(int workers) const {
    return (images.chunks * (1 + levels) * partial_size() + workers * (copy_size + pack_size)) *
           static_cast<int64_t>(sizeof(T));
  }
};

// From one image row to the next, in elements, and from one window to the next, in rows and
// columns.
struct WindowStrides {
  int64_t row, rows, columns;
};

// Adds the contribution of out_rows x out_columns outputs of one image to rows [first, last) of the
// partial sums.
template <class T>
void accumulate_image(const T* pixels, const WindowStrides& strides, const T* gradient,
                      int64_t gradient_stride, int64_t out_rows, int64_t out_columns, int64_t first,
                      int64_t last, T* partial, const Conv2d& s) {
  const PackedMatrix<T> layout{1, s.out};
  const int64_t columns = round_up(s.out, Vec<T>::width);
  const int64_t window_row = s.window.columns * s.in, row_stride = strides.row;
  const Segments segments{out_rows,
                          out_columns,
                          strides.columns * s.in,
                          strides.rows * row_stride,
                          gradient_stride,
                          s.out_width * gradient_stride};
  Epilogue<T> add;
  add.accumulate = true;
  for (int64_t panel = 0; panel < layout.panels(); ++panel) {
    if (panel > 0 && !keep_going(out_rows * s.out_width * (last - first))) return;
    const int64_t left = panel * tile_columns<T>;
    // Consecutive rows of the product are contiguous in a window row. With less than 8 elements in
    // it, a narrow tile would have fewer rows than multiply-adds in flight.
    if (s.out - left <= narrow_vectors * Vec<T>::width && window_row >= 8) {
      for (int64_t row = first, count = 0; row < last; row += count) {
        count = min(window_row - row % window_row, last - row);
        const NarrowGemm<T> narrow(count, s.out - left);
        narrow.multiply(
            {pixels + row / window_row * row_stride + row % window_row, 1, 3, gradient + left,
             partial + row * columns + left, columns, layout.panel_stride(panel)},
            segments, add);
      }
      continue;
    }
    // One channel and 3 x 3 filters: all nine rows in one tile.
    if (s.out - left <= narrow_vectors * Vec<T>::width && window_row == 3 && first == 0 &&
        last <= narrow_rows<narrow_vectors>) {
      NarrowGemm<T>(last, s.out - left)
          .multiply({pixels, 1, row_stride, gradient + left, partial + left, columns,
                     layout.panel_stride(panel)},
                    segments, add);
      continue;
    }
    for (int64_t row = first; row < last; row += tile_rows) {
      const int tile = static_cast<int>(min(tile_rows, last - row));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile_rows; ++r) {
        const int64_t index = row + min(r, tile - 1);
        a_rows[r] = pixels + index / window_row * row_stride + index % window_row;
        c_rows[r] = partial + index * columns + left;
      }
      microkernel(a_rows, gradient + left, c_rows, tile, layout.panel_stride(panel), segments, add);
    }
  }
}

// sum[k] += Σ_p rows[p][k].
template <class T>
void accumulate_bias(const T* rows, int64_t count, int64_t columns, T* sum) {
  using V = Vec<T>;
  for (int64_t k = 0; k < columns; k += V::width) {
    V total = V::zero();
    for (int64_t p = 0; p < count; ++p) total = total + V::load(rows + p * columns + k);
    (V::load(sum + k) + total).store(sum + k);
  }
}

template <class T>
void backward_weight_gemm(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                          const Workspace& workspace) {
  using V = Vec<T>;
  const BackwardWeightSplit<T> split(s);
  const ImplicitGemm<T> gemm = forward_gemm<T>(s);
  const int64_t pixels_out = s.out_height * s.out_width;
  T* const partials = static_cast<T*>(workspace.data);
  T* const buffers = partials + split.images.chunks * split.partial_size();
  T* const copies = buffers + split.images.chunks * split.levels * split.partial_size();
  const int64_t cycles = convolution_cycles(s, V::width);
  parallel_for(
      split.images.chunks * split.groups, cycles, workspace.workers,
      [&](int64_t index, int worker) {
        const int64_t chunk = index / split.groups, group = index % split.groups;
        const int64_t first = group * split.group_rows;
        const int64_t last = min(split.rows, first + split.group_rows);
        T* const partial = partials + chunk * split.partial_size();
        const int64_t bias = split.rows * split.columns;
        fill_zero(partial + first * split.columns, (last - first) * split.columns);
        if (group == 0) {
          for (int64_t i = 0; i < split.columns; ++i) partial[bias + i] = T(0);
        }
        const Subtotals<T> subtotals(buffers + chunk * split.levels * split.partial_size(),
                                     split.partial_size());
        int64_t steps = 0, pushed = 0;
        T* const copy = copies + worker * (split.copy_size + split.pack_size);
        T* const pack = copy + split.copy_size;
        const int64_t end = split.images.end(chunk);
        for (int64_t image = split.images.begin(chunk); image < end; ++image) {
          const T* const source = x + image * s.height * s.width * s.in;
          const T* pixels = source;
          WindowStrides strides{s.width * s.in, s.window.stride_rows, s.window.stride_columns};
          if (split.copy_size > 0) {
            const WindowAxis down = gemm.row_axis(s.out_height), across = gemm.column_axis();
            copy_windows(source, gemm.image, gemm.top, gemm.left, down, across, copy);
            pixels = copy;
            strides = {across.copy_length() * s.in, down.copy_stride(), across.copy_stride()};
          }
          const T* gradient = dy + image * pixels_out * s.out;
          if (split.pack_size > 0) {  // the microkernel reads full vectors, past the last filter
            for (int64_t p = 0; p < pixels_out; ++p) {
              if (p % row_part == row_part - 1 && !keep_going(row_part)) return;
              T* const to = pack + p * split.columns;
              for (int64_t k = 0; k < split.columns; ++k)
                to[k] = k < s.out ? gradient[p * s.out + k] : T(0);
            }
            gradient = pack;
          }
          // All rows of the product use a band of the gradient, of which one panel has 64 kB.
          for (int64_t top = 0; top < s.out_height; top += split.band) {
            const int64_t height = min(split.band, s.out_height - top);
            for (int64_t left = 0; left < s.out_width; left += split.step_columns) {
              const int64_t width = min(split.step_columns, s.out_width - left);
              if (!keep_going(height * width * (last - first))) return;
              if (steps++ == BackwardWeightSplit<T>::max_steps) {
                steps = 1;
                subtotals.push(pushed, partial, first * split.columns, last * split.columns);
                if (group == 0) subtotals.push(pushed, partial, bias, bias + split.columns);
                ++pushed;
              }
              const T* const rows = gradient + (top * s.out_width + left) * split.gradient_stride;
              accumulate_image(
                  pixels + top * strides.rows * strides.row + left * strides.columns * s.in,
                  strides, rows, split.gradient_stride, height, width, first, last, partial, s);
              // The band is in the cache now. Tried and not kept: packing its panels, so that they
              // are closer together (56 x 56 x 256 with 1 x 1 filters: 2 %).
              if (group == 0) accumulate_bias(rows, height * width, split.columns, partial + bias);
            }
          }
        }
        subtotals.add_to(pushed, partial, first * split.columns, last * split.columns);
        if (group == 0) subtotals.add_to(pushed, partial, bias, bias + split.columns);
      });
  // Adds the partial sums of the chunks and transposes them from (r, s, c) rows to filters. A task
  // has rows. If it had filters, every cache line of the partial sums would go to every thread.
  constexpr int64_t task_rows = 16;
  parallel_for(
      ceil_div(split.rows + 1, task_rows), split.images.chunks * split.partial_size(),
      workspace.workers, [&](int64_t index, int) {
        const int64_t end = min(split.rows + 1, (index + 1) * task_rows);
        for (int64_t row = index * task_rows; row < end; ++row) {
          T* const to = row < split.rows ? dweight + row : dbias;
          const int64_t step = row < split.rows ? split.rows : 1;
          for (int64_t k = 0; k < s.out; k += V::width) {
            const T* const from = partials + row * split.columns + k;
            T lane[V::width];
            sum_partials(from, split.images.chunks, split.partial_size(), FullVector()).store(lane);
            for (int64_t i = 0; i < min(V::width, s.out - k); ++i) {
              to[(k + i) * step] = lane[i];
            }
          }
        }
      });
}

}  // namespace chainrule::CR_ISA
