// The gradient of 3 x 3 filters by Winograd's method, the adjoint of the forward pass of
// winograd.h:
//
//   dg = Gᵀ [Σ over tiles (Bᵀ d B) ⊙ (A dy Aᵀ)] G
//
// For each of the 36 components the sum is a product (channels x tiles) · (tiles x filters). A task
// does all of them over one chunk of the tiles, if their sums fit the second-level cache, so that
// x and dy come from memory once; else two rows of components, 12 of them.
#pragma once

#include "cpu/kernels/conv/winograd.h"

namespace chainrule::CR_ISA {

template <class T>
struct WinogradWeight {
  using V = Vec<T>;
  using Axis = Transforms<T>;
  Image image, gradient;  // x, and dy
  int64_t top, left;
  Tiles tiles;

  static constexpr int64_t side = Tiles::pixels;
  static constexpr int64_t most_tasks = 18;
  static constexpr int64_t most_bytes = int64_t{32} << 20;
  static constexpr int64_t cache_bytes = int64_t{704} << 10;

  // Tiles at once. Sums too large for the cache (in groups) are read and written half as often.
  int64_t block() const { return groups() == 1 ? Tiles::block : 2 * Tiles::block; }
  // The split depends on the shape alone, so the bits do too.
  int64_t groups() const {
    const int64_t each = round_up(Tiles::block * (image.channels + columns()), 16) + 32;
    const int64_t size = sum_size() + Tiles::components * each;
    return size * static_cast<int64_t>(sizeof(T)) <= cache_bytes ? 1 : 3;
  }
  int64_t rows() const { return side / groups(); }  // of components, a task
  int64_t chunks() const {
    const int64_t bytes = sum_size() * static_cast<int64_t>(sizeof(T));
    const int64_t blocks = ceil_div(tiles.count(), block());
    const int64_t most = smaller(smaller(most_tasks / groups(), blocks), most_bytes / bytes);
    return most < 2 ? 1 : most / 2 * 2;  // for two threads
  }
  int64_t tasks() const { return groups() * chunks(); }

  int64_t filters() const { return gradient.channels; }
  int64_t columns() const { return round_up(filters(), V::width); }
  // The sums of one chunk: component, channel, filter; then the bias.
  int64_t sum_size() const {
    return round_up((Tiles::components * image.channels + 1) * columns(), 16);
  }
  // Not a power of two, as in winograd.h.
  int64_t pixels_step() const { return round_up(block() * image.channels, 16) + 16; }
  int64_t gradient_step() const { return round_up(block() * columns(), 16) + 16; }
  int64_t own_size() const {
    return side * rows() * (pixels_step() + gradient_step()) +
           round_up(Tiles::components * larger(image.channels, filters()), 16);
  }
  int64_t workspace(int workers) const {
    return (chunks() * sum_size() + workers * own_size()) * static_cast<int64_t>(sizeof(T));
  }

  void run(const T* x, const T* dy, int64_t task, T* sums, T* own) const {
    if (groups() == 1) run<side>(x, dy, task, 0, sums, own);
    else run<side / 3>(x, dy, task / 3, task % 3 * (side / 3), sums, own);
  }

  // Adds up the chunks in order and transforms back, for one register of filters. False if a
  // result is not finite.
  bool finish(const T* sums, int64_t first, T* dweight, T* dbias) const {
    const int64_t channels = image.channels, lanes = smaller(V::width, filters() - first);
    const auto total = [&](int64_t row) {
      return sum_of_parts(sums + row * columns() + first, chunks(), sum_size(), Whole());
    };
    V check = V::zero();
    for (int64_t c = 0; c < channels; ++c) {
      V half[3][side];
      for (int j = 0; j < side; ++j) {
        V u[side], g[3];
        for (int i = 0; i < side; ++i) u[i] = total((side * i + j) * channels + c);
        Axis::of_sums(u, g);
        for (int r = 0; r < 3; ++r) half[r][j] = g[r];
      }
      for (int r = 0; r < 3; ++r) {
        V g[3];
        Axis::of_sums(half[r], g);
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
    const V bias = total(Tiles::components * channels);
    check = fma(bias, V::zero(), check);
    bias.store(dbias + first, lanes);
    return sum(check) == T(0);
  }

 private:
  // Rows [above, above + rows) of components, over one chunk.
  template <int rows>
  void run(const T* x, const T* dy, int64_t chunk, int64_t above, T* sums, T* own) const {
    T* const sum = sums + chunk * sum_size();
    T* const bias = above == 0 ? sum + Tiles::components * image.channels * columns() : nullptr;
    T* const pixels = own;
    T* const products = pixels + side * rows * pixels_step();
    T* const copy = products + side * rows * gradient_step();
    const int64_t first = chunk * tiles.count() / chunks();
    const int64_t last = (chunk + 1) * tiles.count() / chunks();
    for (int64_t k = 0; bias && k < columns(); ++k) bias[k] = T(0);
    for (int64_t start = first; start < last; start += block()) {
      const int64_t count = smaller(block(), last - start);
      for (int64_t p = 0; p < count; ++p) {
        const Place at = tiles.place(start + p);
        const Patch<T> d(x, image, at.image, top + at.row, left + at.column, side, copy);
        transform_pixels<rows>(d, image.channels, above, pixels_step(),
                               pixels + p * image.channels);
        const Patch<T> g(dy, gradient, at.image, at.row, at.column, Tiles::outputs, copy);
        transform_gradient<rows>(g, above, p, products, bias);
      }
      for (int64_t j = 0; j < side * rows; ++j) {
        multiply(pixels + j * pixels_step(), products + j * gradient_step(), count, start > first,
                 sum + (side * above + j) * image.channels * columns());
      }
    }
  }

  // Rows of A dy Aᵀ, packed in slivers for multiply(); the sum of dy is added to the bias.
  template <int rows>
  void transform_gradient(const Patch<T>& g, int64_t above, int64_t p, T* target, T* bias) const {
    constexpr int outputs = Tiles::outputs;
    const int64_t pixel = filters(), row = g.row, component = gradient_step();
    const Packed<T> layout{block(), filters()};
    for (int64_t sliver = 0; sliver < layout.slivers(); ++sliver) {
      T* const to = target + layout.sliver_offset(sliver) + p * layout.sliver_step(sliver);
      const T* const from = g.corner + sliver * tile_columns<T>;
      T* const sum = bias ? bias + sliver * tile_columns<T> : nullptr;
      for_registers<T>(layout.sliver_columns(sliver), [=](int64_t k, auto lanes) {
        V half[side][outputs], total = V::zero();
#pragma GCC unroll 4
        for (int j = 0; j < outputs; ++j) {
          V y[outputs], u[side];
#pragma GCC unroll 4
          for (int i = 0; i < outputs; ++i) y[i] = lanes.load(from + i * row + j * pixel + k);
          total = total + ((y[0] + y[1]) + (y[2] + y[3]));
          Axis::of_gradient(y, u);
#pragma GCC unroll 6
          for (int i = 0; i < side; ++i) half[i][j] = u[i];
        }
        if (sum) (V::load(sum + k) + total).store(sum + k);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
          V u[side];
          Axis::of_gradient(half[above + i], u);
#pragma GCC unroll 6
          for (int j = 0; j < side; ++j) u[j].store(to + (side * i + j) * component + k);
        }
      });
    }
  }

  // sum[channel][filter] (+)= Σ over tiles pixels[tile][channel] · products[tile][filter]
  void multiply(const T* pixels, const T* products, int64_t count, bool accumulate, T* sum) const {
    const Packed<T> layout{block(), filters()};
    Epilogue<T> add;
    add.accumulate = accumulate;
    for (int64_t sliver = 0; sliver < layout.slivers(); ++sliver) {
      const int64_t step = layout.sliver_step(sliver);
      const Segments segments{1, count, image.channels, 0, step, 0};
      for (int64_t c = 0; c < image.channels; c += tile_rows) {
        const int rows = static_cast<int>(smaller(tile_rows, image.channels - c));
        const T* a_rows[tile_rows];
        T* c_rows[tile_rows];
        for (int r = 0; r < tile_rows; ++r) {
          const int64_t channel = c + smaller(r, rows - 1);
          a_rows[r] = pixels + channel;
          c_rows[r] = sum + channel * columns() + sliver * tile_columns<T>;
        }
        multiply_tile(a_rows, products + layout.sliver_offset(sliver), c_rows, rows, step, segments,
                      add);
      }
    }
  }
};

}  // namespace chainrule::CR_ISA
