// Winograd's F(4x4, 3x3), after Lavin and Gray (arXiv:1509.09308), for 3 x 3 filters and stride 1.
// A tile of 4 x 4 outputs is computed from its 6 x 6 pixels d with 36 products per channel and
// filter. The direct sum needs 144.
//
//   y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A
//
// Each of the 36 components is a matrix product (tiles x channels) · (channels x filters), which
// the GEMM microkernel computes. A block of tiles passes all three stages before the next block.
// Its transformed pixels and products then stay in the L2 cache. Backward input is the same over dy
// with rotated filters. Backward weight is the adjoint (winograd_backward_weight.h).
//
// The interpolation points are 0, ±5/8, ±3/2 and infinity. The usual ±1 and ±2 double the error.
// The root mean square error, divided by that of the implicit GEMM, is 2.2 with 16 channels, 1.9
// with 32 and 1.6 with 256, whose sums are split. The matrices B and A are exact.
//
// Tried and not kept: prefetching the pixels of the next tiles, here and in backward weight (2 % at
// most). Larger blocks, whose products do not fit the L2 cache (5 % slower).
//
// The sums differ from those of the implicit GEMM by roundings of the largest pixel in a tile, and
// a non-finite pixel would reach all outputs of its tile. run() therefore reports the contrast of
// the images (winograd_contrast.h) and results that are not finite. The caller computes the
// affected images with the implicit GEMM.
#pragma once

#include "cpu/kernels/conv/implicit_gemm.h"
#include "cpu/kernels/conv/winograd_contrast.h"
#include "cpu/kernels/conv/winograd_transforms.h"

namespace chainrule::CR_ISA {

struct TileOrigin {
  int64_t image, row, column;
};

// The output tiles of a batch, numbered by image, then by row, then by column.
struct WinogradTiles {
  static constexpr int64_t outputs = 4, pixels = 6, components = pixels * pixels;
  static constexpr int64_t block = 4 * tile_rows;
  static constexpr int64_t max_channels = int64_t{1} << 16;  // whose parts are added in order
  int64_t batch, rows, columns;                              // outputs of an image

  int64_t down() const { return ceil_div(rows, outputs); }
  int64_t across() const { return ceil_div(columns, outputs); }
  int64_t tiles_per_image() const { return down() * across(); }
  int64_t count() const { return batch * tiles_per_image(); }
  int64_t blocks() const { return ceil_div(count(), block); }

  TileOrigin origin(int64_t tile) const {  // the first output of the tile
    const int64_t in_image = tile % tiles_per_image();
    return {tile / tiles_per_image(), outputs * (in_image / across()),
            outputs * (in_image % across())};
  }
  // The pixels of an axis that belong to the tile whose first output is `first`. The next tile has
  // the others.
  static int64_t own_pixels(int64_t first, int64_t length) {
    return first + outputs < length ? outputs : pixels;
  }

  // Returns true if Winograd is used for this shape. The last condition compares its 36 products
  // per tile with nine products per output. Sizes that are not multiples of 4 waste some of the 36.
  // With fewer channels or filters the transforms cost more than they save. float64 always uses the
  // more accurate implicit GEMM. The scalar backend does too, because it is the reference for the
  // others.
  template <class T>
  static bool supports(int64_t batch, const ImplicitGemm<T>& c) {
    const WinogradTiles tiles{batch, c.out_rows, c.out_columns};
    return Vec<T>::width > 1 && sizeof(T) == sizeof(float) && c.window_rows == 3 &&
           c.window_columns == 3 && c.stride_rows == 1 && c.stride_columns == 1 &&
           c.image.channels >= 16 && c.image.channels <= max_channels && c.filters.columns >= 16 &&
           tiles.count() >= block &&
           components * tiles.tiles_per_image() * 4 <= 9 * c.out_rows * c.out_columns * 3;
  }
};

// The pixels of a tile: in place, or in a padded copy if some are outside the image.
template <class T>
struct ImagePatch {
  const T* corner;
  int64_t row;  // from one row to the next

  ImagePatch(const T* images, const ImageShape& s, int64_t image, int64_t top, int64_t left,
             int64_t size, T* copy) {
    const T* const source = images + image * s.height * s.width * s.channels;
    if (top >= 0 && left >= 0 && top + size <= s.height && left + size <= s.width) {
      corner = source + (top * s.width + left) * s.channels;
      row = s.width * s.channels;
    } else {
      copy_padded(source, s, top, left, size, size, copy);
      corner = copy;
      row = size * s.channels;
    }
  }
};

// Computes rows [first, first + rows) of Bᵀ d B. Components are `component` elements apart.
template <int rows, class T>
void transform_input(const ImagePatch<T>& d, int64_t channels, int64_t first, int64_t component,
                     T* target) {
  using V = Vec<T>;
  constexpr int side = WinogradTiles::pixels;
  const T* const corner = d.corner;
  const int64_t row = d.row;
  for_each_vector<T>(channels, [=](int64_t c, auto lanes) {
    V half[side][side];  // Bᵀ d
#pragma GCC unroll 6
    for (int j = 0; j < side; ++j) {
      V column[side], u[side];
#pragma GCC unroll 6
      for (int i = 0; i < side; ++i) column[i] = lanes.load(corner + i * row + j * channels + c);
      WinogradTransforms<T>::input(column, u);
#pragma GCC unroll 6
      for (int i = 0; i < side; ++i) half[i][j] = u[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      V u[side];
      WinogradTransforms<T>::input(half[first + i], u);
      T* const to = target + side * i * component + c;
#pragma GCC unroll 6
      for (int j = 0; j < side; ++j) lanes.store(u[j], to + j * component);
    }
  });
}

// The convolution of all images of a batch.
template <class T>
struct WinogradConvolution {
  using V = Vec<T>;
  using Transform = WinogradTransforms<T>;
  static constexpr int64_t outputs = WinogradTiles::outputs, side = WinogradTiles::pixels;
  static constexpr int64_t components = WinogradTiles::components;
  static constexpr int64_t max_channels_per_sum = 64;
  ImplicitGemm<T> gemm;
  WinogradTiles tiles;

  explicit WinogradConvolution(const ImplicitGemm<T>& c, int64_t batch)
      : gemm(c), tiles{batch, c.out_rows, c.out_columns} {}

  int64_t channels() const { return gemm.image.channels; }
  PackedMatrix<T> filters() const {
    return {channels(), gemm.filters.columns};
  }  // of one component

  // Elements of the transformed filters.
  int64_t filters_size() const { return round_up(components * filters().size(), 16); }
  // From one component to the next. With a power of two all components would use one set of the L1
  // cache, so a cache line is added.
  int64_t pixels_stride() const { return round_up(WinogradTiles::block * channels(), 16) + 16; }
  static constexpr int64_t products_stride = WinogradTiles::block * tile_columns<T> + 16;
  int64_t pixels_size() const { return components * pixels_stride(); }
  static constexpr int64_t products_size = components * products_stride;
  int64_t worker_scratch_size() const {
    return pixels_size() + products_size + round_up(components * channels(), 16);
  }

  // Computes G g Gᵀ for one panel of filters that are packed for the implicit GEMM.
  void transform_filters(const T* packed, int64_t panel, T* transformed) const {
    const PackedMatrix<T> one = filters();
    const int64_t step = one.panel_stride(panel), taps = channels() * step;
    const T* const from = packed + gemm.filters.panel_offset(panel);
    for (int64_t i = 0; i < taps; i += V::width) {
      V half[side][3];  // G g
      for (int s = 0; s < 3; ++s) {
        V g[3], u[side];
        for (int r = 0; r < 3; ++r) g[r] = V::load(from + (3 * r + s) * taps + i);
        Transform::filter(g, u);
        for (int r = 0; r < side; ++r) half[r][s] = u[r];
      }
      for (int r = 0; r < side; ++r) {
        V u[side];
        Transform::filter(half[r], u);
        for (int s = 0; s < side; ++s) {
          u[s].store(transformed + (side * r + s) * one.size() + one.panel_offset(panel) + i);
        }
      }
    }
  }

  // What run() reports about the tiles of one image in one block.
  struct Report {
    GroupLevels<T> levels;
    bool finite;
  };
  // An image or a block ends between one report and the next.
  int64_t reports() const { return tiles.blocks() + tiles.batch; }

  // Computes one block of tiles and fills its reports. The outputs of a tile are passed to
  // output.store_tile(gemm, origin, first filter, lanes, y).
  template <class Output>
  void run(const T* source, int64_t block, const T* transformed, T* worker_scratch,
           Report* all_reports, const Output& output) const {
    T* const pixels = worker_scratch;
    T* const products = pixels + pixels_size();
    const int64_t first = block * WinogradTiles::block;
    const int64_t count = min(WinogradTiles::block, tiles.count() - first);
    const int64_t first_image = tiles.origin(first).image;
    Report* const reports = all_reports + block + first_image;
    V checks[WinogradTiles::block];
    int64_t images = 0;
    for (int64_t p = 0; p < count; ++p) {
      const TileOrigin at = tiles.origin(first + p);
      const ImagePatch<T> d(source, gemm.image, at.image, gemm.top + at.row, gemm.left + at.column,
                            side, products + products_size);
      if (at.image - first_image == images) {
        reports[images].levels.clear();
        checks[images++] = V::zero();
      }
      reports[images - 1].levels.add_pixels(d.corner, d.row, channels(),
                                            WinogradTiles::own_pixels(at.row, tiles.rows),
                                            WinogradTiles::own_pixels(at.column, tiles.columns));
      transform_input<side>(d, channels(), 0, pixels_stride(), pixels + p * channels());
    }
    const PackedMatrix<T> one = filters();
    for (int64_t panel = 0; panel < one.panels(); ++panel) {
      if (!keep_going(count * channels() * WinogradTiles::components)) return;
      multiply(pixels, count, transformed, panel, products);
      const int64_t left = panel * tile_columns<T>;
      for (int64_t p = 0; p < count; ++p) {
        const TileOrigin at = tiles.origin(first + p);
        V check = checks[at.image - first_image];
        for_each_vector<T>(one.panel_columns(panel), [&](int64_t k, auto lanes) {
          V y[outputs][outputs];
          transform_output(products + p * tile_columns<T> + k, y);
          const V bias = gemm.bias ? lanes.load(gemm.bias + left + k) : V::zero();
          for (auto& row : y) {
            for (V& value : row) {
              check = fma(value, V::zero(), check);
              if (gemm.bias) value = value + bias;
              if (gemm.relu) value = select(value <= V::zero(), V::zero(), value);
            }
          }
          output.store_tile(gemm, at, left + k, lanes, y);
        });
        checks[at.image - first_image] = check;
      }
    }
    for (int64_t i = 0; i < images; ++i) reports[i].finite = reduce_sum(checks[i]) == T(0);
  }

  // Returns true if the results of an image are accurate. `filter_level` is the least maximum of
  // |weight| of a filter.
  bool accurate(const Report* reports, int64_t image, T filter_level) const {
    const int64_t first = image * tiles.tiles_per_image() / WinogradTiles::block;
    const int64_t last = ((image + 1) * tiles.tiles_per_image() - 1) / WinogradTiles::block;
    GroupLevels<T> levels;
    levels.clear();
    bool finite = true;
    for (int64_t block = first; block <= last; ++block) {
      levels.add(reports[block + image].levels);
      finite = finite && reports[block + image].finite;
    }
    const T largest = levels.largest();
    return finite && levels.even(gemm.image.height * gemm.image.width) &&
           (largest == T(0) || largest >= static_cast<T>(smallest_product) / filter_level);
  }

 private:
  // Computes products[component][tile][k] for one panel of filters. The sum over channels is split
  // into parts. All tiles of the block use a part while it is in the L1 cache. Errors grow with the
  // square root of the length of a part (256 channels: 1.9 times smaller).
  void multiply(const T* pixels, int64_t count, const T* transformed, int64_t panel,
                T* products) const {
    const PackedMatrix<T> one = filters();
    const int64_t step = one.panel_stride(panel),
                  parts = ceil_div(channels(), max_channels_per_sum);
    for (int64_t component = 0; component < components; ++component) {
      const T* const a = pixels + component * pixels_stride();
      const T* const b = transformed + component * one.size() + one.panel_offset(panel);
      T* const c = products + component * products_stride;
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
    if (step <= narrow_vectors * V::width) {
      return NarrowGemm<T>(count, step)
          .multiply({a, channels(), 3 * channels(), b, c, tile_columns<T>, step}, segments, add);
    }
    for (int64_t p = 0; p < count; p += tile_rows) {
      const int rows = static_cast<int>(min(tile_rows, count - p));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile_rows; ++r) {
        a_rows[r] = a + (p + min(r, rows - 1)) * channels();
        c_rows[r] = c + (p + r) * tile_columns<T>;
      }
      microkernel(a_rows, b, c_rows, rows, step, segments, add);
    }
  }

  // Aᵀ m A
  static CR_INLINE void transform_output(const T* m, V y[outputs][outputs]) {
    V half[outputs][side];
#pragma GCC unroll 6
    for (int j = 0; j < side; ++j) {
      V column[side], u[outputs];
#pragma GCC unroll 6
      for (int i = 0; i < side; ++i) column[i] = V::load(m + (side * i + j) * products_stride);
      Transform::output(column, u);
#pragma GCC unroll 4
      for (int i = 0; i < outputs; ++i) half[i][j] = u[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < outputs; ++i) Transform::output(half[i], y[i]);
  }
};

}  // namespace chainrule::CR_ISA
