// The gradient of 3 x 3 filters by Winograd's method, the adjoint of the forward pass of
// winograd.h:
//
//   dg = Gᵀ [Σ over tiles (Bᵀ d B) ⊙ (A dy Aᵀ)] G
//
// For each of the 16 components the sum is a product (channels x tiles) · (tiles x filters). A task
// does all of them over one chunk of the tiles, if their sums fit the second-level cache, so that
// x and dy come from memory once; else one row of components, 4 of them. The bias's gradient comes
// for nothing: component (1, 1) of A dy Aᵀ is the sum of dy over the tile.
#pragma once

#include "cpu/kernels/winograd.h"

namespace chainrule::CR_ISA {

template <class T>
struct WinogradWeight {
  using V = Vec<T>;
  Image image, gradient;  // x, and dy
  int64_t top, left;
  Tiles tiles;

  static constexpr int64_t block = Tiles::block;
  static constexpr int64_t most_tasks = 16;
  static constexpr int64_t most_bytes = int64_t{32} << 20;
  static constexpr int64_t cache_bytes = int64_t{704} << 10;

  // The split depends on the shape alone, so the bits do too.
  int64_t groups() const {
    const int64_t size = sum_size() + 16 * (pixels_step() + gradient_step());
    return size * static_cast<int64_t>(sizeof(T)) <= cache_bytes ? 1 : 4;
  }
  int64_t rows() const { return 4 / groups(); }  // of components, a task
  int64_t chunks() const {
    const int64_t bytes = sum_size() * static_cast<int64_t>(sizeof(T));
    const int64_t blocks = ceil_div(tiles.count(), block);
    return larger(1, smaller(smaller(most_tasks / groups(), blocks), most_bytes / bytes));
  }
  int64_t tasks() const { return groups() * chunks(); }

  int64_t filters() const { return gradient.channels; }
  int64_t columns() const { return round_up(filters(), V::width); }
  // The sums of one chunk: component, channel, filter; then the bias.
  int64_t sum_size() const { return round_up((16 * image.channels + 1) * columns(), 16); }
  // Not a power of two, as in winograd.h.
  int64_t pixels_step() const { return round_up(block * image.channels, 16) + 16; }
  int64_t gradient_step() const { return round_up(block * columns(), 16) + 16; }
  int64_t own_size() const {
    return 4 * rows() * (pixels_step() + gradient_step()) +
           round_up(16 * larger(image.channels, filters()), 16);
  }
  int64_t workspace(int workers) const {
    return (chunks() * sum_size() + workers * own_size()) * static_cast<int64_t>(sizeof(T));
  }

  void run(const T* x, const T* dy, int64_t task, T* sums, T* own) const {
    const int64_t chunk = task / groups(), above = task % groups() * rows();
    T* const sum = sums + chunk * sum_size();
    T* const bias = sum + 16 * image.channels * columns();
    T* const pixels = own;
    T* const products = pixels + 4 * rows() * pixels_step();
    T* const copy = products + 4 * rows() * gradient_step();
    const bool summing = above <= 1 && 1 < above + rows();
    const int64_t first = chunk * tiles.count() / chunks();
    const int64_t last = (chunk + 1) * tiles.count() / chunks();
    if (summing) {
      for (int64_t k = 0; k < columns(); ++k) bias[k] = T(0);
    }
    for (int64_t start = first; start < last; start += block) {
      const int64_t count = smaller(block, last - start);
      for (int64_t p = 0; p < count; ++p) {
        const Tiles::Place at = tiles.place(start + p);
        const Patch<T> d(x, image, at.image, top + at.row, left + at.column, 4, copy);
        for (int64_t i = 0; i < rows(); ++i) {
          transform_pixels(d, above + i, pixels + 4 * i * pixels_step() + p * image.channels);
        }
        const Patch<T> g(dy, gradient, at.image, at.row, at.column, 2, copy);
        for (int64_t i = 0; i < rows(); ++i) {
          transform_gradient(g, above + i, p, products + 4 * i * gradient_step());
        }
      }
      for (int64_t j = 0; j < 4 * rows(); ++j) {
        multiply(pixels + j * pixels_step(), products + j * gradient_step(), count, start > first,
                 sum + (4 * above + j) * image.channels * columns());
      }
      if (summing) add_bias(products + (4 * (1 - above) + 1) * gradient_step(), count, bias);
    }
  }

  // Adds up the chunks in order and transforms back, for one register of filters. False if a
  // result is not finite.
  bool finish(const T* sums, int64_t first, T* dweight, T* dbias) const {
    const int64_t channels = image.channels, lanes = smaller(V::width, filters() - first);
    const auto total = [&](int64_t row) {
      const T* const from = sums + row * columns() + first;
      V value = V::load(from);
      for (int64_t chunk = 1; chunk < chunks(); ++chunk) {
        value = value + V::load(from + chunk * sum_size());
      }
      return value;
    };
    V check = V::zero();
    for (int64_t c = 0; c < channels; ++c) {
      V half[3][4];
      for (int j = 0; j < 4; ++j) {
        contract(total(j * channels + c), total((4 + j) * channels + c),
                 total((8 + j) * channels + c), total((12 + j) * channels + c), half[0][j],
                 half[1][j], half[2][j]);
      }
      for (int r = 0; r < 3; ++r) {
        V g[3];
        contract(half[r][0], half[r][1], half[r][2], half[r][3], g[0], g[1], g[2]);
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
    const V bias = total(16 * channels);
    check = fma(bias, V::zero(), check);
    bias.store(dbias + first, lanes);
    return sum(check) == T(0);
  }

 private:
  // Row i of Bᵀ d, then times B.
  void transform_pixels(const Patch<T>& d, int64_t i, T* target) const {
    constexpr int plus[4] = {0, 1, 2, 1}, other[4] = {2, 2, 1, 3};
    const T* const a = d.corner + plus[i] * d.row;
    const T* const b = d.corner + other[i] * d.row;
    const V sign = V::set(i == 1 ? T(1) : T(-1));
    const int64_t pixel = image.channels, component = pixels_step();
    for_registers<T>(pixel, [=](int64_t c, auto lanes) {
      V half[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        half[j] = fma(sign, lanes.load(b + j * pixel + c), lanes.load(a + j * pixel + c));
      }
      T* const to = target + c;
      lanes.store(half[0] - half[2], to);
      lanes.store(half[1] + half[2], to + component);
      lanes.store(half[2] - half[1], to + 2 * component);
      lanes.store(half[1] - half[3], to + 3 * component);
    });
  }

  // Row i of A dy, then times Aᵀ, packed in slivers for multiply().
  void transform_gradient(const Patch<T>& g, int64_t i, int64_t p, T* target) const {
    constexpr T upper[4] = {1, 1, 1, 0}, lower[4] = {0, 1, -1, -1};
    const V plus = V::set(upper[i]), other = V::set(lower[i]);
    const int64_t pixel = filters(), row = g.row, component = gradient_step();
    const T* const corner = g.corner;
    const Packed<T> layout{block, filters()};
    for (int64_t sliver = 0; sliver < layout.slivers(); ++sliver) {
      T* const to = target + layout.sliver_offset(sliver) + p * layout.sliver_step(sliver);
      const T* const from = corner + sliver * tile_columns<T>;
      for_registers<T>(layout.sliver_columns(sliver), [=](int64_t k, auto lanes) {
        V half[2];
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
          half[j] = fma(plus, lanes.load(from + j * pixel + k),
                        other * lanes.load(from + row + j * pixel + k));
        }
        half[0].store(to + k);
        (half[0] + half[1]).store(to + component + k);
        (half[0] - half[1]).store(to + 2 * component + k);
        (V::zero() - half[1]).store(to + 3 * component + k);
      });
    }
  }

  // sum[channel][filter] (+)= Σ over tiles pixels[tile][channel] · products[tile][filter]
  void multiply(const T* pixels, const T* products, int64_t count, bool accumulate, T* sum) const {
    const Packed<T> layout{block, filters()};
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

  void add_bias(const T* products, int64_t count, T* bias) const {
    const Packed<T> layout{block, filters()};
    for (int64_t k = 0; k < columns(); k += V::width) {
      const int64_t sliver = k / tile_columns<T>, step = layout.sliver_step(sliver);
      const T* const from = products + layout.sliver_offset(sliver) + k % tile_columns<T>;
      V total = V::load(bias + k);
      for (int64_t p = 0; p < count; ++p) total = total + V::load(from + p * step);
      total.store(bias + k);
    }
  }

  // Gᵀ
  static CR_INLINE void contract(V u0, V u1, V u2, V u3, V& g0, V& g1, V& g2) {
    const V half = V::set(T(0.5));
    g0 = fma(half, u1 + u2, u0);
    g1 = half * (u1 - u2);
    g2 = fma(half, u1 + u2, u3);
  }
};

}  // namespace chainrule::CR_ISA
