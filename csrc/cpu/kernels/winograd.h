// Winograd's F(2x2, 3x3), after Lavin and Gray (arXiv:1509.09308): a tile of 2 x 2 outputs of a
// convolution with 3 x 3 filters and stride 1, and its 4 x 4 pixels d, from 16 products a channel
// and filter instead of 36:
//
//   y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A
//
// For each of the 16 components this is a matrix product (tiles x channels) · (channels x filters),
// done by the tile of gemm.h. A block of tiles goes through all three stages at once, so that its
// transformed pixels (16 x 48 x channels, 196 kB at 64) and products stay in the second-level
// cache. Backward input is the same over dy with turned filters; backward weight is the adjoint,
//
//   dg = Gᵀ [Σ over tiles (A dy Aᵀ) ⊙ (Bᵀ d B)] G
//
// with one row of components (4 of 16) a task, whose sum over a chunk of tiles stays in place.
//
// Transforms cost a vector of channels about 24 cycles a tile, of filters about 18, beside
// channels · filters / 2 for the products (512-bit): an eighth at 32 x 64.
//
// Tried and not kept: fetching the next tiles' pixels ahead (2 %).
//
// The sums differ from the direct ones by a few roundings of the largest pixel in a tile. A pixel
// that is not finite would reach all of its tile; the results say so, and the caller computes what
// is concerned directly.
#pragma once

#include "cpu/kernels/correlate.h"

namespace chainrule::CR_ISA {

// Outputs go in tiles of 2 x 2, numbered image after image, row after row.
struct Tiles {
  static constexpr int64_t block = 8 * tile_rows;
  int64_t batch, rows, columns;  // outputs of an image

  int64_t down() const { return ceil_div(rows, 2); }
  int64_t across() const { return ceil_div(columns, 2); }
  int64_t each() const { return down() * across(); }
  int64_t count() const { return batch * each(); }
  int64_t blocks() const { return ceil_div(count(), block); }

  struct Place {
    int64_t image, row, column;  // of the first output
  };
  Place place(int64_t tile) const {
    const int64_t in_image = tile % each();
    return {tile / each(), 2 * (in_image / across()), 2 * (in_image % across())};
  }

  // 36 products an output against 16 a tile, of which odd sizes waste some. Fewer channels or
  // filters do not pay for the transforms. float64 is for those who want every digit, and the
  // scalar backend is the plain one that the others are held against.
  template <class T>
  static bool serve(int64_t batch, const Correlation<T>& c) {
    const Tiles tiles{batch, c.out_rows, c.out_columns};
    return Vec<T>::width > 1 && sizeof(T) == sizeof(float) && c.window_rows == 3 &&
           c.window_columns == 3 && c.step_rows == 1 && c.step_columns == 1 &&
           c.image.channels >= 16 && c.filters.columns >= 16 && tiles.count() >= block &&
           16 * tiles.each() * 4 <= 9 * c.out_rows * c.out_columns * 3;
  }
};

// The pixels d of a tile: where they lie, or in a copy if some lie outside the image.
template <class T>
struct Patch {
  const T* corner;
  int64_t row;  // distance of its rows

  Patch(const T* images, const Image& s, int64_t image, int64_t top, int64_t left, int64_t size,
        T* copy) {
    const T* const source = images + image * s.height * s.width * s.channels;
    if (top >= 0 && left >= 0 && top + size <= s.height && left + size <= s.width) {
      corner = source + (top * s.width + left) * s.channels;
      row = s.width * s.channels;
    } else {
      copy_rectangle(source, s, top, left, size, size, copy);
      corner = copy;
      row = size * s.channels;
    }
  }
};

// A correlation of all images of a batch by this method.
template <class T>
struct WinogradCorrelation {
  using V = Vec<T>;
  Correlation<T> direct;
  Tiles tiles;

  explicit WinogradCorrelation(const Correlation<T>& c, int64_t batch)
      : direct(c), tiles{batch, c.out_rows, c.out_columns} {}

  int64_t channels() const { return direct.image.channels; }
  Packed<T> filters() const { return {channels(), direct.filters.columns}; }  // of one component

  // Elements of: the transformed filters; what one worker needs for itself.
  int64_t filters_size() const { return round_up(16 * filters().size(), 16); }
  // From one component to the next: a cache line more than a power of two, or all sixteen would
  // fall into one set of the first-level cache.
  int64_t pixels_step() const { return round_up(Tiles::block * channels(), 16) + 16; }
  static constexpr int64_t products_step = Tiles::block * tile_columns<T> + 16;
  int64_t pixels_size() const { return 16 * pixels_step(); }
  static constexpr int64_t products_size = 16 * products_step;
  int64_t own_size() const { return pixels_size() + products_size + round_up(16 * channels(), 16); }

  // G g Gᵀ, from filters packed for the direct correlation, one sliver.
  void transform_filters(const T* packed, int64_t sliver, T* transformed) const {
    const Packed<T> one = filters();
    const int64_t step = one.sliver_step(sliver), taps = channels() * step;
    const T* const from = packed + direct.filters.sliver_offset(sliver);
    for (int64_t i = 0; i < taps; i += V::width) {
      V half[4][3];  // G g
      for (int s = 0; s < 3; ++s) {
        const V g0 = V::load(from + (0 + s) * taps + i), g1 = V::load(from + (3 + s) * taps + i),
                g2 = V::load(from + (6 + s) * taps + i);
        expand(g0, g1, g2, half[0][s], half[1][s], half[2][s], half[3][s]);
      }
      for (int r = 0; r < 4; ++r) {
        V u[4];
        expand(half[r][0], half[r][1], half[r][2], u[0], u[1], u[2], u[3]);
        for (int s = 0; s < 4; ++s) {
          u[s].store(transformed + (4 * r + s) * one.size() + one.sliver_offset(sliver) + i);
        }
      }
    }
  }

  // One block of tiles. False if a result is not finite: then none of the block's may be right.
  // result.tile(direct, place, first filter, lanes, y) takes the outputs of a tile.
  template <class Result>
  bool run(const T* source, int64_t block, const T* transformed, T* own,
           const Result& result) const {
    T* const pixels = own;
    T* const products = pixels + pixels_size();
    const int64_t first = block * Tiles::block;
    const int64_t count = smaller(Tiles::block, tiles.count() - first);
    for (int64_t p = 0; p < count; ++p) {
      const Tiles::Place at = tiles.place(first + p);
      const Patch<T> d(source, direct.image, at.image, direct.top + at.row, direct.left + at.column,
                       4, products + products_size);
      transform_pixels(d, pixels + p * channels());
    }
    const Packed<T> one = filters();
    V check = V::zero();
    for (int64_t sliver = 0; sliver < one.slivers(); ++sliver) {
      multiply(pixels, count, transformed, sliver, products);
      const int64_t left = sliver * tile_columns<T>;
      for (int64_t p = 0; p < count; ++p) {
        const Tiles::Place at = tiles.place(first + p);
        for_registers<T>(one.sliver_columns(sliver), [&](int64_t k, auto lanes) {
          V y[2][2];
          transform_products(products + p * tile_columns<T> + k, y);
          for (int i = 0; i < 4; ++i) check = fma(y[i / 2][i % 2], V::zero(), check);
          const V bias = direct.bias ? lanes.load(direct.bias + left + k) : V::zero();
          for (int i = 0; i < 4; ++i) {
            V& value = y[i / 2][i % 2];
            if (direct.bias) value = value + bias;
            if (direct.rectify) value = select(value <= V::zero(), V::zero(), value);
          }
          result.tile(direct, at, left + k, lanes, y);
        });
      }
    }
    return sum(check) == T(0);
  }

 private:
  static CR_INLINE void expand(V g0, V g1, V g2, V& u0, V& u1, V& u2, V& u3) {
    const V half = V::set(T(0.5));
    const V outer = (g0 + g2) * half, inner = g1 * half;
    u0 = g0;
    u1 = outer + inner;
    u2 = outer - inner;
    u3 = g2;
  }

  // Bᵀ d B into component after component.
  void transform_pixels(const Patch<T>& d, T* target) const {
    const T* const corner = d.corner;
    const int64_t row = d.row, pixel = channels(), component = pixels_step();
    for_registers<T>(channels(), [=](int64_t c, auto lanes) {
      V half[4][4];  // Bᵀ d
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const T* const from = corner + j * pixel + c;
        const V d0 = lanes.load(from), d1 = lanes.load(from + row), d2 = lanes.load(from + 2 * row),
                d3 = lanes.load(from + 3 * row);
        half[0][j] = d0 - d2;
        half[1][j] = d1 + d2;
        half[2][j] = d2 - d1;
        half[3][j] = d1 - d3;
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        T* const to = target + 4 * i * component + c;
        lanes.store(half[i][0] - half[i][2], to);
        lanes.store(half[i][1] + half[i][2], to + component);
        lanes.store(half[i][2] - half[i][1], to + 2 * component);
        lanes.store(half[i][1] - half[i][3], to + 3 * component);
      }
    });
  }

  // products[component][tile][k] of one sliver of the filters.
  void multiply(const T* pixels, int64_t count, const T* transformed, int64_t sliver,
                T* products) const {
    const Packed<T> one = filters();
    const Segments segments{1, channels(), 1, 0, one.sliver_step(sliver), 0};
    if (one.sliver_step(sliver) <= strip_vectors * V::width) {
      const Strips<T> strips(count, one.sliver_step(sliver));
      for (int64_t component = 0; component < 16; ++component) {
        strips.multiply(
            {pixels + component * pixels_step(), channels(), 3 * channels(),
             transformed + component * one.size() + one.sliver_offset(sliver),
             products + component * products_step, tile_columns<T>, one.sliver_step(sliver)},
            segments, Epilogue<T>());
      }
      return;
    }
    for (int64_t component = 0; component < 16; ++component) {
      const T* const a = pixels + component * pixels_step();
      const T* const b = transformed + component * one.size() + one.sliver_offset(sliver);
      T* const c = products + component * products_step;
      for (int64_t p = 0; p < count; p += tile_rows) {
        const int rows = static_cast<int>(smaller(tile_rows, count - p));
        const T* a_rows[tile_rows];
        T* c_rows[tile_rows];
        for (int r = 0; r < tile_rows; ++r) {
          a_rows[r] = a + (p + smaller(r, rows - 1)) * channels();
          c_rows[r] = c + (p + r) * tile_columns<T>;
        }
        multiply_tile(a_rows, b, c_rows, rows, one.sliver_step(sliver), segments, Epilogue<T>());
      }
    }
  }

  // Aᵀ m A
  static CR_INLINE void transform_products(const T* m, V y[2][2]) {
    constexpr int64_t component = products_step;
    V half[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V m0 = V::load(m + j * component), m1 = V::load(m + (4 + j) * component),
              m2 = V::load(m + (8 + j) * component), m3 = V::load(m + (12 + j) * component);
      half[0][j] = m0 + m1 + m2;
      half[1][j] = m1 - m2 - m3;
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      y[i][0] = half[i][0] + half[i][1] + half[i][2];
      y[i][1] = half[i][1] - half[i][2] - half[i][3];
    }
  }
};

}  // namespace chainrule::CR_ISA
