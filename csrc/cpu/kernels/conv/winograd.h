// Winograd's F(4x4, 3x3), after Lavin and Gray (arXiv:1509.09308): a tile of 4 x 4 outputs of a
// convolution with 3 x 3 filters and stride 1, and its 6 x 6 pixels d, from 36 products a channel
// and filter instead of 144:
//
//   y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A
//
// For each of the 36 components this is a matrix product (tiles x channels) · (channels x filters),
// done by the tile of gemm.h. A block of tiles goes through all three stages at once, so that its
// transformed pixels and products stay in the second-level cache. Backward input is the same over
// dy with turned filters; backward weight is the adjoint (winograd_weight.h).
//
// The polynomials meet at 0, ±5/8, ±3/2 and infinity: the textbook's ±1 and ±2 cost twice the
// error. Root mean square beside the direct method's: 2.2 with 16 channels, 1.9 with 32, 1.6 with
// 256, whose sums go in parts; the matrices B and A are exact.
//
// Tried and not kept: fetching the next tiles' pixels ahead (2 % at most), here and in backward
// weight; larger blocks, whose products leave the second-level cache (5 %).
//
// The sums differ from the direct ones by roundings of the largest pixel in a tile. A pixel
// that is not finite would reach all of its tile; the results say so, and the caller computes what
// is concerned directly.
#pragma once

#include "cpu/kernels/conv/implicit_gemm.h"
#include "cpu/kernels/conv/winograd_transforms.h"

namespace chainrule::CR_ISA {

struct Place {
  int64_t image, row, column;
};

// Outputs go in tiles, numbered image after image, row after row.
struct Tiles {
  static constexpr int64_t outputs = 4, pixels = 6, components = pixels * pixels;
  static constexpr int64_t block = 4 * tile_rows;
  int64_t batch, rows, columns;  // outputs of an image

  int64_t down() const { return ceil_div(rows, outputs); }
  int64_t across() const { return ceil_div(columns, outputs); }
  int64_t each() const { return down() * across(); }
  int64_t count() const { return batch * each(); }
  int64_t blocks() const { return ceil_div(count(), block); }

  Place place(int64_t tile) const {  // of its first output
    const int64_t in_image = tile % each();
    return {tile / each(), outputs * (in_image / across()), outputs * (in_image % across())};
  }

  // Nine products an output against 36 a tile, of which odd sizes waste some. Fewer channels or
  // filters do not pay for the transforms. float64 is for those who want every digit, and the
  // scalar backend is the plain one that the others are held against.
  template <class T>
  static bool serve(int64_t batch, const Correlation<T>& c) {
    const Tiles tiles{batch, c.out_rows, c.out_columns};
    return Vec<T>::width > 1 && sizeof(T) == sizeof(float) && c.window_rows == 3 &&
           c.window_columns == 3 && c.step_rows == 1 && c.step_columns == 1 &&
           c.image.channels >= 16 && c.filters.columns >= 16 && tiles.count() >= block &&
           components * tiles.each() * 4 <= 9 * c.out_rows * c.out_columns * 3;
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

// Rows [first, first + rows) of Bᵀ d B, component after component.
template <int rows, class T>
void transform_pixels(const Patch<T>& d, int64_t channels, int64_t first, int64_t component,
                      T* target) {
  using V = Vec<T>;
  constexpr int side = Tiles::pixels;
  const T* const corner = d.corner;
  const int64_t row = d.row;
  for_registers<T>(channels, [=](int64_t c, auto lanes) {
    V half[side][side];  // Bᵀ d
#pragma GCC unroll 6
    for (int j = 0; j < side; ++j) {
      V column[side], u[side];
#pragma GCC unroll 6
      for (int i = 0; i < side; ++i) column[i] = lanes.load(corner + i * row + j * channels + c);
      Transforms<T>::of_pixels(column, u);
#pragma GCC unroll 6
      for (int i = 0; i < side; ++i) half[i][j] = u[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      V u[side];
      Transforms<T>::of_pixels(half[first + i], u);
      T* const to = target + side * i * component + c;
#pragma GCC unroll 6
      for (int j = 0; j < side; ++j) lanes.store(u[j], to + j * component);
    }
  });
}

// A correlation of all images of a batch by this method.
template <class T>
struct WinogradCorrelation {
  using V = Vec<T>;
  using Axis = Transforms<T>;
  static constexpr int64_t outputs = Tiles::outputs, side = Tiles::pixels;
  static constexpr int64_t components = Tiles::components;
  static constexpr int64_t most_terms = 64;
  Correlation<T> direct;
  Tiles tiles;

  explicit WinogradCorrelation(const Correlation<T>& c, int64_t batch)
      : direct(c), tiles{batch, c.out_rows, c.out_columns} {}

  int64_t channels() const { return direct.image.channels; }
  Packed<T> filters() const { return {channels(), direct.filters.columns}; }  // of one component

  // Elements of: the transformed filters; what one worker needs for itself.
  int64_t filters_size() const { return round_up(components * filters().size(), 16); }
  // From one component to the next: a cache line more than a power of two, or all of them would
  // fall into one set of the first-level cache.
  int64_t pixels_step() const { return round_up(Tiles::block * channels(), 16) + 16; }
  static constexpr int64_t products_step = Tiles::block * tile_columns<T> + 16;
  int64_t pixels_size() const { return components * pixels_step(); }
  static constexpr int64_t products_size = components * products_step;
  int64_t own_size() const {
    return pixels_size() + products_size + round_up(components * channels(), 16);
  }

  // G g Gᵀ, from filters packed for the direct correlation, one sliver.
  void transform_filters(const T* packed, int64_t sliver, T* transformed) const {
    const Packed<T> one = filters();
    const int64_t step = one.sliver_step(sliver), taps = channels() * step;
    const T* const from = packed + direct.filters.sliver_offset(sliver);
    for (int64_t i = 0; i < taps; i += V::width) {
      V half[side][3];  // G g
      for (int s = 0; s < 3; ++s) {
        V g[3], u[side];
        for (int r = 0; r < 3; ++r) g[r] = V::load(from + (3 * r + s) * taps + i);
        Axis::of_taps(g, u);
        for (int r = 0; r < side; ++r) half[r][s] = u[r];
      }
      for (int r = 0; r < side; ++r) {
        V u[side];
        Axis::of_taps(half[r], u);
        for (int s = 0; s < side; ++s) {
          u[s].store(transformed + (side * r + s) * one.size() + one.sliver_offset(sliver) + i);
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
      const Place at = tiles.place(first + p);
      const Patch<T> d(source, direct.image, at.image, direct.top + at.row, direct.left + at.column,
                       side, products + products_size);
      transform_pixels<side>(d, channels(), 0, pixels_step(), pixels + p * channels());
    }
    const Packed<T> one = filters();
    V check = V::zero();
    for (int64_t sliver = 0; sliver < one.slivers(); ++sliver) {
      multiply(pixels, count, transformed, sliver, products);
      const int64_t left = sliver * tile_columns<T>;
      for (int64_t p = 0; p < count; ++p) {
        const Place at = tiles.place(first + p);
        for_registers<T>(one.sliver_columns(sliver), [&](int64_t k, auto lanes) {
          V y[outputs][outputs];
          transform_products(products + p * tile_columns<T> + k, y);
          const V bias = direct.bias ? lanes.load(direct.bias + left + k) : V::zero();
          for (auto& row : y) {
            for (V& value : row) {
              check = fma(value, V::zero(), check);
              if (direct.bias) value = value + bias;
              if (direct.relu) value = select(value <= V::zero(), V::zero(), value);
            }
          }
          result.tile(direct, at, left + k, lanes, y);
        });
      }
    }
    return sum(check) == T(0);
  }

 private:
  // products[component][tile][k] of one sliver of the filters. Channels go in parts, whose sums
  // are added up: what is in the first-level cache is used for all tiles of the block, and errors
  // grow with the square root of a part (256 channels: 1.9 times less).
  void multiply(const T* pixels, int64_t count, const T* transformed, int64_t sliver,
                T* products) const {
    const Packed<T> one = filters();
    const int64_t step = one.sliver_step(sliver), parts = ceil_div(channels(), most_terms);
    for (int64_t component = 0; component < components; ++component) {
      const T* const a = pixels + component * pixels_step();
      const T* const b = transformed + component * one.size() + one.sliver_offset(sliver);
      T* const c = products + component * products_step;
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = part * channels() / parts;
        const Segments segments{1, (part + 1) * channels() / parts - first, 1, 0, step, 0};
        Epilogue<T> add;
        add.accumulate = part > 0;
        multiply_rows(a + first, count, b + first * step, c, step, segments, add);
      }
    }
  }

  void multiply_rows(const T* a, int64_t count, const T* b, T* c, int64_t step,
                     const Segments& segments, const Epilogue<T>& add) const {
    if (step <= strip_vectors * V::width) {
      return Strips<T>(count, step)
          .multiply({a, channels(), 3 * channels(), b, c, tile_columns<T>, step}, segments, add);
    }
    for (int64_t p = 0; p < count; p += tile_rows) {
      const int rows = static_cast<int>(smaller(tile_rows, count - p));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile_rows; ++r) {
        a_rows[r] = a + (p + smaller(r, rows - 1)) * channels();
        c_rows[r] = c + (p + r) * tile_columns<T>;
      }
      multiply_tile(a_rows, b, c_rows, rows, step, segments, add);
    }
  }

  // Aᵀ m A
  static CR_INLINE void transform_products(const T* m, V y[outputs][outputs]) {
    V half[outputs][side];
#pragma GCC unroll 6
    for (int j = 0; j < side; ++j) {
      V column[side], u[outputs];
#pragma GCC unroll 6
      for (int i = 0; i < side; ++i) column[i] = V::load(m + (side * i + j) * products_step);
      Axis::of_products(column, u);
#pragma GCC unroll 4
      for (int i = 0; i < outputs; ++i) half[i][j] = u[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < outputs; ++i) Axis::of_products(half[i], y[i]);
  }
};

}  // namespace chainrule::CR_ISA
