// The gradient of a convolution's filters, directly: a product whose rows are (r, s, c), whose
// columns are filters, and whose sum runs over the pixels of an image, read where they lie.
#pragma once

#include "cpu/kernels/conv/convolution.h"

namespace chainrule::CR_ISA {

// How backward weight splits its sum: images into chunks, each with partial sums of its own, and
// the (r, s, c) rows into groups. The split depends on the shape alone, so the bits do too.
template <class T>
struct WeightSplit {
  static constexpr int64_t most_chunks = 16;
  static constexpr int64_t most_bytes = int64_t{16} << 20;
  int64_t rows, columns, chunks, groups, group_rows, gradient_step, copy_size, pack_size;

  explicit WeightSplit(const Conv2d& s) {
    rows = s.window.rows * s.window.columns * s.in;
    columns = round_up(s.out, Vec<T>::width);
    const int64_t bytes = larger(1, rows * columns * static_cast<int64_t>(sizeof(T)));
    chunks = larger(1, smaller(smaller(most_chunks, s.batch), most_bytes / bytes));
    groups = larger(1, smaller(ceil_div(most_chunks, chunks), rows / (8 * tile_rows)));
    group_rows = round_up(ceil_div(larger(1, rows), groups), tile_rows);
    groups = ceil_div(larger(1, rows), group_rows);
    gradient_step = columns;
    const Correlation<T> seen = forward<T>(s);
    copy_size = s.batch > 0 && seen.reaches_outside()
                    ? round_up(seen.rows_seen(s.out_height) * seen.columns_seen() * s.in, 16)
                    : 0;
    pack_size =
        s.batch == 0 || columns == s.out ? 0 : round_up(s.out_height * s.out_width * columns, 16);
  }
  // Partial sums of the weights, then of the bias.
  int64_t partial_size() const { return round_up((rows + 1) * columns, 16); }
  int64_t workspace(int workers) const {
    return (chunks * partial_size() + workers * (copy_size + pack_size)) *
           static_cast<int64_t>(sizeof(T));
  }
};

// Adds the share of some rows of one image's output to rows [first, last) of the partial sums.
template <class T>
void add_image(const T* pixels, int64_t row_stride, const T* gradient, int64_t gradient_step,
               int64_t out_rows, int64_t first, int64_t last, T* partial, const Conv2d& s) {
  const Packed<T> layout{1, s.out};
  const int64_t columns = round_up(s.out, Vec<T>::width);
  const int64_t run = s.window.columns * s.in;
  const Segments segments{out_rows,
                          s.out_width,
                          s.window.stride_columns * s.in,
                          s.window.stride_rows * row_stride,
                          gradient_step,
                          s.out_width * gradient_step};
  Epilogue<T> add;
  add.accumulate = true;
  for (int64_t sliver = 0; sliver < layout.slivers(); ++sliver) {
    const int64_t left = sliver * tile_columns<T>;
    // In a shorter run a strip has fewer rows than the multiply-adds in flight.
    if (s.out - left <= strip_vectors * Vec<T>::width && run >= 8) {
      for (int64_t row = first, count = 0; row < last; row += count) {
        count = smaller(run - row % run, last - row);  // side by side
        const Strips<T> strips(count, s.out - left);
        strips.multiply({pixels + row / run * row_stride + row % run, 1, 3, gradient + left,
                         partial + row * columns + left, columns, layout.sliver_step(sliver)},
                        segments, add);
      }
      continue;
    }
    // One channel under 3 x 3: the nine rows at once.
    if (s.out - left <= strip_vectors * Vec<T>::width && run == 3 && first == 0 &&
        last <= strip_rows<strip_vectors>) {
      Strips<T>(last, s.out - left)
          .multiply({pixels, 1, row_stride, gradient + left, partial + left, columns,
                     layout.sliver_step(sliver)},
                    segments, add);
      continue;
    }
    for (int64_t row = first; row < last; row += tile_rows) {
      const int tile = static_cast<int>(smaller(tile_rows, last - row));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile_rows; ++r) {
        const int64_t index = row + smaller(r, tile - 1);
        a_rows[r] = pixels + index / run * row_stride + index % run;
        c_rows[r] = partial + index * columns + left;
      }
      multiply_tile(a_rows, gradient + left, c_rows, tile, layout.sliver_step(sliver), segments,
                    add);
    }
  }
}

// sum[k] += rows[p][k] for every p, in order.
template <class T>
void add_rows(const T* rows, int64_t count, int64_t columns, T* sum) {
  using V = Vec<T>;
  for (int64_t k = 0; k < columns; k += V::width) {
    V total = V::load(sum + k);
    for (int64_t p = 0; p < count; ++p) total = total + V::load(rows + p * columns + k);
    total.store(sum + k);
  }
}

template <class T>
void weight_directly(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                     const Workspace& workspace) {
  using V = Vec<T>;
  const WeightSplit<T> split(s);
  const Correlation<T> seen = forward<T>(s);
  const int64_t pixels_out = s.out_height * s.out_width;
  T* const partials = static_cast<T*>(workspace.data);
  T* const copies = partials + split.chunks * split.partial_size();
  const int64_t cycles = cycles_of(s, V::width);
  parallel(split.chunks * split.groups, cycles, workspace.workers, [&](int64_t index, int worker) {
    const int64_t chunk = index / split.groups, group = index % split.groups;
    const int64_t first = group * split.group_rows;
    const int64_t last = smaller(split.rows, first + split.group_rows);
    T* const partial = partials + chunk * split.partial_size();
    T* const partial_bias = partial + split.rows * split.columns;
    for (int64_t i = first * split.columns; i < last * split.columns; ++i) partial[i] = T(0);
    if (group == 0) {
      for (int64_t i = 0; i < split.columns; ++i) partial_bias[i] = T(0);
    }
    T* const copy = copies + worker * (split.copy_size + split.pack_size);
    T* const pack = copy + split.copy_size;
    const int64_t end = (chunk + 1) * s.batch / split.chunks;
    for (int64_t image = chunk * s.batch / split.chunks; image < end; ++image) {
      const T* const source = x + image * s.height * s.width * s.in;
      const T* pixels = source;
      int64_t row_stride = s.width * s.in;
      if (split.copy_size > 0) {
        copy_rectangle(source, seen.image, seen.top, seen.left, seen.rows_seen(s.out_height),
                       seen.columns_seen(), copy);
        pixels = copy;
        row_stride = seen.columns_seen() * s.in;
      }
      const T* gradient = dy + image * pixels_out * s.out;
      if (split.pack_size > 0) {  // whole registers: the tile reads past the last filter
        for (int64_t p = 0; p < pixels_out; ++p) {
          T* const to = pack + p * split.columns;
          for (int64_t k = 0; k < split.columns; ++k)
            to[k] = k < s.out ? gradient[p * s.out + k] : T(0);
        }
        gradient = pack;
      }
      // A band of the gradient, one sliver of it 64 kB, passes by all rows of the product.
      const int64_t band = larger(1, 256 / larger(1, s.out_width));
      for (int64_t top = 0; top < s.out_height; top += band) {
        const int64_t height = smaller(band, s.out_height - top);
        const T* const rows = gradient + top * s.out_width * split.gradient_step;
        add_image(pixels + top * s.window.stride_rows * row_stride, row_stride, rows,
                  split.gradient_step, height, first, last, partial, s);
        // While the band is in the cache. Tried and not kept: its slivers packed, so that they lie
        // closer together (56 x 56 x 256 under 1 x 1: 2 %).
        if (group == 0) add_rows(rows, height * s.out_width, split.columns, partial_bias);
      }
    }
  });
  // The chunks' sums, from (r, s, c) rows back to filters. A task has rows of its own: had
  // it filters, every line of the partial sums would go to every thread.
  constexpr int64_t piece = 16;
  parallel(ceil_div(split.rows + 1, piece), split.chunks * split.partial_size(), workspace.workers,
           [&](int64_t index, int) {
             const int64_t end = smaller(split.rows + 1, (index + 1) * piece);
             for (int64_t row = index * piece; row < end; ++row) {
               T* const to = row < split.rows ? dweight + row : dbias;
               const int64_t step = row < split.rows ? split.rows : 1;
               for (int64_t k = 0; k < s.out; k += V::width) {
                 const T* const from = partials + row * split.columns + k;
                 T lane[V::width];
                 sum_of_parts(from, split.chunks, split.partial_size(), Whole()).store(lane);
                 for (int64_t i = 0; i < smaller(V::width, s.out - k); ++i) {
                   to[(k + i) * step] = lane[i];
                 }
               }
             }
           });
}

}  // namespace chainrule::CR_ISA
