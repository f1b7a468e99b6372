// The gradient of 3 x 3 filters with Winograd's algorithm: the adjoint of the forward pass of
// winograd.h.
//
//   dg = Gᵀ [Σ over tiles (Bᵀ d B) ⊙ (A dy Aᵀ)] G
//
// For each of the 36 components the sum is a product (channels x tiles) · (tiles x filters). If the
// sums fit the L2 cache, a task computes all components over one chunk of the tiles. x and dy are
// then read from memory once. Otherwise a task computes two rows of components, which are 12.
#pragma once

#include "cpu/kernels/conv/winograd.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

template <class T>
struct WinogradBackwardWeight {
  using V = Vec<T>;
  using Transform = WinogradTransforms<T>;
  ImageShape image, gradient;  // x, and dy
  int64_t top, left;
  WinogradTiles tiles;

  static constexpr int64_t side = WinogradTiles::pixels;
  static constexpr int64_t max_tasks = 18;
  static constexpr int64_t max_bytes = int64_t{32} << 20;
  static constexpr int64_t cache_bytes = int64_t{704} << 10;

  // Tiles per block. Sums that do not fit the cache (several groups) use blocks twice as large, so
  // that they are read and written half as often.
  int64_t block() const { return groups() == 1 ? WinogradTiles::block : 2 * WinogradTiles::block; }
  // The split, and therefore the bits, depend on the shape only.
  int64_t groups() const {
    const int64_t component =
        round_up(WinogradTiles::block * (image.channels + columns()), 16) + 32;
    const int64_t size = sum_size() + WinogradTiles::components * component;
    return size * static_cast<int64_t>(sizeof(T)) <= cache_bytes ? 1 : 3;
  }
  int64_t rows() const { return side / groups(); }  // rows of components per task
  int64_t chunks() const {
    const int64_t bytes = sum_size() * static_cast<int64_t>(sizeof(T));
    const int64_t blocks = ceil_div(tiles.count(), block());
    const int64_t max_chunks = min(min(max_tasks / groups(), blocks), max_bytes / bytes);
    return max_chunks < 2 ? 1 : max_chunks / 2 * 2;  // for two threads
  }
  int64_t tasks() const { return groups() * chunks(); }
  // After so many blocks the sums of a chunk are a subtotal.
  int64_t max_blocks() const { return max_part_terms / block(); }
  int64_t levels() const {
    const int64_t blocks = ceil_div(ceil_div(tiles.count(), chunks()), block());
    return Subtotals<T>::levels(ceil_div(blocks, max_blocks()));
  }

  int64_t filters() const { return gradient.channels; }
  int64_t columns() const { return round_up(filters(), V::width); }
  // The sums of one chunk: (component, channel, filter), then the bias.
  int64_t sum_size() const {
    return round_up((WinogradTiles::components * image.channels + 1) * columns(), 16);
  }
  // Not a power of two. See winograd.h.
  int64_t pixels_stride() const { return round_up(block() * image.channels, 16) + 16; }
  int64_t gradient_stride() const { return round_up(block() * columns(), 16) + 16; }
  int64_t worker_scratch_size() const {
    return side * rows() * (pixels_stride() + gradient_stride()) +
           round_up(WinogradTiles::components * max(image.channels, filters()), 16);
  }
  // The sums of the chunks, then the buffers of their subtotals.
  int64_t sums_size() const { return chunks() * (1 + levels()) * sum_size(); }
  // The contrast of the tiles of one image in one chunk. An image or a chunk ends between one and
  // the next.
  struct Report {
    GroupLevels<T> pixels, gradients;
  };
  int64_t reports_size() const {
    const int64_t bytes = (chunks() + tiles.batch) * static_cast<int64_t>(sizeof(Report));
    return round_up(ceil_div(bytes, static_cast<int64_t>(sizeof(T))), 16);
  }
  int64_t workspace_size(int workers) const {
    return (sums_size() + reports_size() + workers * worker_scratch_size()) *
           static_cast<int64_t>(sizeof(T));
  }

  void run(const T* x, const T* dy, int64_t task, T* sums, Report* reports,
           T* worker_scratch) const {
    if (groups() == 1) run<side>(x, dy, task, 0, sums, reports, worker_scratch);
    else run<side / 3>(x, dy, task / 3, task % 3 * (side / 3), sums, reports, worker_scratch);
  }

  // Returns true if the sums are accurate: if the images with too much contrast in x or dy have
  // smaller products than the others. All elements of the result are sums over all images.
  bool accurate(const Report* reports) const {
    T even = T(0), uneven = T(0);
    int64_t chunk = 0;
    for (int64_t image_index = 0; image_index < tiles.batch; ++image_index) {
      Report total;
      total.pixels.clear();
      total.gradients.clear();
      const int64_t end = (image_index + 1) * tiles.tiles_per_image();
      for (;; ++chunk) {
        total.pixels.add(reports[chunk + image_index].pixels);
        total.gradients.add(reports[chunk + image_index].gradients);
        if (first_tile(chunk + 1) >= end) break;
      }
      if (first_tile(chunk + 1) == end) ++chunk;
      const bool both = total.pixels.even(image.height * image.width) &&
                        total.gradients.even(gradient.height * gradient.width);
      (both ? even : uneven) += total.pixels.largest() * total.gradients.largest();
    }
    return uneven <= even && even >= static_cast<T>(smallest_product);
  }

  // Adds the chunks in order and transforms the sum, for one vector of filters. Returns false if a
  // result is not finite.
  bool reduce(const T* sums, int64_t first, T* dweight, T* dbias) const {
    const int64_t channels = image.channels, lanes = min(V::width, filters() - first);
    const auto total = [&](int64_t row) {
      return sum_partials(sums + row * columns() + first, chunks(), sum_size(), FullVector());
    };
    V check = V::zero();
    for (int64_t c = 0; c < channels; ++c) {
      V half[3][side];
      for (int j = 0; j < side; ++j) {
        V u[side], g[3];
        for (int i = 0; i < side; ++i) u[i] = total((side * i + j) * channels + c);
        Transform::filter_gradient(u, g);
        for (int r = 0; r < 3; ++r) half[r][j] = g[r];
      }
      for (int r = 0; r < 3; ++r) {
        V g[3];
        Transform::filter_gradient(half[r], g);
        for (int s = 0; s < 3; ++s) {
          check = fma(g[s], V::zero(), check);
          T lane[V::width];
          g[s].store(lane);
          for (int64_t k = 0; k < lanes; ++k) {
            dweight[((first + k) * 9 + 3 * r + s) * channels + c] = lane[k];
          }
        }
      }
    }
    const V bias = total(WinogradTiles::components * channels);
    check = fma(bias, V::zero(), check);
    bias.store(dbias + first, lanes);
    return reduce_sum(check) == T(0);
  }

 private:
  int64_t first_tile(int64_t chunk) const { return chunk * tiles.count() / chunks(); }

  // Computes rows [first_row, first_row + rows) of components over one chunk.
  template <int rows>
  void run(const T* x, const T* dy, int64_t chunk, int64_t first_row, T* sums, Report* reports,
           T* worker_scratch) const {
    T* const sum = sums + chunk * sum_size();
    // The range of this task's sums.
    const int64_t begin = side * first_row * image.channels * columns();
    const int64_t end = begin + side * rows * image.channels * columns();
    const int64_t bias_begin = WinogradTiles::components * image.channels * columns();
    T* const bias = first_row == 0 ? sum + bias_begin : nullptr;
    const Subtotals<T> subtotals(sums + (chunks() + chunk * levels()) * sum_size(), sum_size());
    int64_t blocks = 0, pushed = 0;
    T* const pixels = worker_scratch;
    T* const products = pixels + side * rows * pixels_stride();
    T* const copy = products + side * rows * gradient_stride();
    const int64_t first = first_tile(chunk), last = first_tile(chunk + 1);
    int64_t reported = -1;  // image
    for (int64_t k = 0; bias && k < columns(); ++k) bias[k] = T(0);
    for (int64_t start = first; start < last; start += block()) {
      if (!keep_going(block() * image.channels * columns())) return;
      const int64_t count = min(block(), last - start);
      if (blocks++ == max_blocks()) {
        blocks = 1;
        subtotals.push(pushed, sum, begin, end);
        if (bias) subtotals.push(pushed, sum, bias_begin, bias_begin + columns());
        ++pushed;
      }
      for (int64_t p = 0; p < count; ++p) {
        const TileOrigin at = tiles.origin(start + p);
        const ImagePatch<T> d(x, image, at.image, top + at.row, left + at.column, side, copy);
        Report& report = reports[chunk + at.image];
        if (first_row == 0) {
          if (at.image != reported) {
            reported = at.image;
            report.pixels.clear();
            report.gradients.clear();
          }
          report.pixels.add_pixels(d.corner, d.row, image.channels,
                                   WinogradTiles::own_pixels(at.row, tiles.rows),
                                   WinogradTiles::own_pixels(at.column, tiles.columns));
        }
        transform_input<rows>(d, image.channels, first_row, pixels_stride(),
                              pixels + p * image.channels);
        const ImagePatch<T> g(dy, gradient, at.image, at.row, at.column, WinogradTiles::outputs,
                              copy);
        if (first_row == 0) {
          report.gradients.add_pixels(g.corner, g.row, filters(), WinogradTiles::outputs,
                                      WinogradTiles::outputs);
        }
        transform_gradient<rows>(g, first_row, p, products, bias);
      }
      for (int64_t j = 0; j < side * rows; ++j) {
        multiply(pixels + j * pixels_stride(), products + j * gradient_stride(), count, blocks > 1,
                 sum + (side * first_row + j) * image.channels * columns());
      }
    }
    subtotals.add_to(pushed, sum, begin, end);
    if (bias) subtotals.add_to(pushed, sum, bias_begin, bias_begin + columns());
  }

  // Computes rows of A dy Aᵀ, packed in panels for multiply(), and adds the sum of dy to the bias.
  template <int rows>
  void transform_gradient(const ImagePatch<T>& g, int64_t first_row, int64_t p, T* target,
                          T* bias) const {
    constexpr int outputs = WinogradTiles::outputs;
    const int64_t pixel = filters(), row = g.row, component = gradient_stride();
    const PackedMatrix<T> layout{block(), filters()};
    for (int64_t panel = 0; panel < layout.panels(); ++panel) {
      T* const to = target + layout.panel_offset(panel) + p * layout.panel_stride(panel);
      const T* const from = g.corner + panel * tile_columns<T>;
      T* const sum = bias ? bias + panel * tile_columns<T> : nullptr;
      for_each_vector<T>(layout.panel_columns(panel), [=](int64_t k, auto lanes) {
        V half[side][outputs], total = V::zero();
#pragma GCC unroll 4
        for (int j = 0; j < outputs; ++j) {
          V y[outputs], u[side];
#pragma GCC unroll 4
          for (int i = 0; i < outputs; ++i) y[i] = lanes.load(from + i * row + j * pixel + k);
          total = total + ((y[0] + y[1]) + (y[2] + y[3]));
          Transform::output_gradient(y, u);
#pragma GCC unroll 6
          for (int i = 0; i < side; ++i) half[i][j] = u[i];
        }
        if (sum) (V::load(sum + k) + total).store(sum + k);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
          V u[side];
          Transform::output_gradient(half[first_row + i], u);
#pragma GCC unroll 6
          for (int j = 0; j < side; ++j) u[j].store(to + (side * i + j) * component + k);
        }
      });
    }
  }

  // sum[channel][filter] (+)= Σ over tiles pixels[tile][channel] · products[tile][filter]
  void multiply(const T* pixels, const T* products, int64_t count, bool accumulate, T* sum) const {
    const PackedMatrix<T> layout{block(), filters()};
    Epilogue<T> add;
    add.accumulate = accumulate;
    for (int64_t panel = 0; panel < layout.panels(); ++panel) {
      const int64_t step = layout.panel_stride(panel);
      const Segments segments{1, count, image.channels, 0, step, 0};
      for (int64_t c = 0; c < image.channels; c += tile_rows) {
        const int rows = static_cast<int>(min(tile_rows, image.channels - c));
        const T* a_rows[tile_rows];
        T* c_rows[tile_rows];
        for (int r = 0; r < tile_rows; ++r) {
          const int64_t channel = c + min(r, rows - 1);
          a_rows[r] = pixels + channel;
          c_rows[r] = sum + channel * columns() + panel * tile_columns<T>;
        }
        microkernel(a_rows, products + layout.panel_offset(panel), c_rows, rows, step, segments,
                    add);
      }
    }
  }
};

}  // namespace chainrule::CR_ISA
