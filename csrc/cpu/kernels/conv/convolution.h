// A convolution of a batch of images, forward or backward: by Winograd's method or by few.h where
// these serve, else directly, band by band. What becomes of the results is the parameter `Result`:
// Pixels puts them where they belong; Pools keeps the largest of each pooling window, so that the
// others never leave the cache.
#pragma once

#include "cpu/kernels/conv/few_channels.h"
#include "cpu/kernels/conv/winograd.h"
#include "cpu/kernels/window_max.h"

namespace chainrule::CR_ISA {

inline int64_t cycles_of(const Conv2d& s, int width) {
  return s.batch * s.out_height * s.out_width * s.out * s.in * s.window.rows * s.window.columns /
         width / 2;
}

template <class T>
Correlation<T> forward(const Conv2d& s) {
  return {
      .image = {s.height, s.width, s.in},
      .window_rows = s.window.rows,
      .window_columns = s.window.columns,
      .top = -s.pad_top,
      .left = -s.pad_left,
      .step_rows = s.window.stride_rows,
      .step_columns = s.window.stride_columns,
      .out_rows = s.out_height,
      .out_columns = s.out_width,
      .target_row = s.out_width * s.out,
      .target_column = s.out,
      .filters = {s.window.rows * s.window.columns * s.in, s.out},
  };
}

template <class T>
struct Pixels {
  T* target;
  int64_t image_step;

  static constexpr bool takes_tiles = true;
  static int64_t bands(const Correlation<T>& c) { return c.bands(); }
  static int64_t own_size(const Correlation<T>& c) { return c.copy_size(c.band_rows()); }

  void band(const Correlation<T>& c, const T* source, int64_t image, int64_t band, const T* packed,
            T* own) const {
    const int64_t first = band * c.band_rows();
    c.run(source, first, smaller(c.band_rows(), c.out_rows - first), packed,
          target + image * image_step + first * c.target_row, own);
  }

  template <class Lanes>
  CR_INLINE void tile(const Correlation<T>& c, const Place& at, int64_t k, Lanes lanes,
                      const Vec<T> (&y)[4][4]) const {
    T* const corner =
        target + at.image * image_step + at.row * c.target_row + at.column * c.target_column + k;
    for (int i = 0; i < 4 && at.row + i < c.out_rows; ++i) {
      for (int j = 0; j < 4 && at.column + j < c.out_columns; ++j) {
        lanes.store(y[i][j], corner + i * c.target_row + j * c.target_column);
      }
    }
  }

  using Few = FewFilters<T, CR_REGISTERS / 4, 1>;
  static constexpr bool takes_rows = true;
  static int64_t width(const Correlation<T>& c) { return c.out_columns; }

  CR_INLINE void rows(const Correlation<T>& c, int64_t image, int64_t group, int64_t first,
                      const typename Few::Sums& sums) const {
    constexpr int count = CR_REGISTERS / 4;
    T* to = target + image * image_step + count * group * c.target_row + first;
    for (int i = 0; i < count && count * group + i < c.out_rows; ++i, to += c.target_row) {
      for_lanes<T, Few::vectors>(c.out_columns * c.filters.columns - first, [&](int v, auto lanes) {
        lanes.store(sums[i][0][v], to + v * Vec<T>::width);
      });
    }
  }
};

// Windows side by side.
template <class T>
struct Pools {
  T* y;
  uint16_t* argmax;
  MaxPool2d s;  // of what the convolution gives

  bool takes_tiles = s.window.rows == 2 && s.window.columns == 2;
  int64_t pooled_rows(const Correlation<T>& c) const {  // a band
    const int64_t fit = Correlation<T>::band_pixels / larger(1, s.window.rows * c.out_columns);
    return smaller(larger(1, s.out_height), larger(1, fit));
  }
  int64_t bands(const Correlation<T>& c) const { return ceil_div(s.out_height, pooled_rows(c)); }
  int64_t pixels_size(const Correlation<T>& c) const {
    return round_up(pooled_rows(c) * s.window.rows * s.width * s.channels, 16);
  }
  int64_t own_size(const Correlation<T>& c) const {
    return pixels_size(c) + c.copy_size(pooled_rows(c) * s.window.rows);
  }

  void band(const Correlation<T>& c, const T* source, int64_t image, int64_t band, const T* packed,
            T* own) const {
    const int64_t first = band * pooled_rows(c);
    const int64_t rows = smaller(pooled_rows(c), s.out_height - first);
    c.run(source, first * s.window.rows, rows * s.window.rows, packed, own, own + pixels_size(c));
    const int64_t out_row = s.out_width * s.channels;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t to = (image * s.out_height + first + i) * out_row;
      pool_row(own + i * s.window.rows * c.target_row, y + to, argmax + to, s);
    }
  }

  template <class Lanes>
  CR_INLINE void tile(const Correlation<T>&, const Place& at, int64_t k, Lanes lanes,
                      const Vec<T> (&v)[4][4]) const {
    const int64_t top = at.row / 2, left = at.column / 2;
    for (int i = 0; i < 2 && top + i < s.out_height; ++i) {
      for (int j = 0; j < 2 && left + j < s.out_width; ++j) {
        Largest<T> largest(v[2 * i][2 * j]);
        for (int p = 1; p < 4; ++p) largest.take(v[2 * i + p / 2][2 * j + p % 2], p);
        const int64_t row = at.image * s.out_height + top + i;
        const int64_t to = (row * s.out_width + left + j) * s.channels + k;
        largest.store(lanes, y + to, argmax + to);
      }
    }
  }

  static constexpr int few_rows = CR_REGISTERS / 16;  // pooled, at once
  using Few = FewFilters<T, 2 * few_rows, 2>;
  bool takes_rows = takes_tiles;
  int64_t width(const Correlation<T>&) const { return s.out_width; }

  CR_INLINE void rows(const Correlation<T>&, int64_t image, int64_t group, int64_t first,
                      const typename Few::Sums& sums) const {
    for (int i = 0; i < few_rows && few_rows * group + i < s.out_height; ++i) {
      const int64_t row = image * s.out_height + few_rows * group + i;
      const int64_t to = row * s.out_width * s.channels + first;
      for_lanes<T, Few::vectors>(s.out_width * s.channels - first, [&](int v, auto lanes) {
        Largest<T> largest(sums[2 * i][0][v]);
        for (int p = 1; p < 4; ++p) largest.take(sums[2 * i + p / 2][p % 2][v], p);
        const int64_t at = to + v * Vec<T>::width;
        largest.store(lanes, y + at, argmax + at);
      });
    }
  }
};

// The packed filters come first in the workspace.
template <class T, class Result>
struct Convolution {
  Correlation<T> direct;
  int64_t images, source_step, cycles;
  Result result;

  int64_t packed_size() const { return round_up(direct.filters.size(), 16); }
  using Few = typename Result::Few;
  bool few() const { return result.takes_rows && Few(direct).serve(); }
  bool tiled() const { return result.takes_tiles && Tiles::serve(images, direct); }

  int64_t workspace(int workers) const {
    int64_t more = workers * result.own_size(direct);
    if (few()) more = Few(direct).weights_size() + workers * Few(direct).own_size();
    if (tiled()) {
      const WinogradCorrelation<T> winograd(direct, images);
      const int64_t flags = ceil_div(winograd.tiles.blocks(), static_cast<int64_t>(sizeof(T)));
      // The direct method has the same memory when it makes good.
      more = larger(more, winograd.filters_size() + workers * winograd.own_size()) +
             round_up(flags, 16);
    }
    return (packed_size() + more) * static_cast<int64_t>(sizeof(T));
  }

  // From (filters, rows, columns, channels).
  void pack_filters(const T* weight, const Workspace& workspace) const {
    const Packed<T>& filters = direct.filters;
    parallel(filters.slivers(), filters.size(), workspace.workers, [&](int64_t sliver, int) {
      pack_sliver(weight, filters.depth, true, filters, sliver, 0, filters.depth,
                  static_cast<T*>(workspace.data));
    });
  }

  void run(const T* source, const Workspace& workspace) const {
    const int workers = workspace.workers;
    const T* const packed = static_cast<const T*>(workspace.data);
    T* const rest = static_cast<T*>(workspace.data) + packed_size();
    if (few()) return rows(source, packed, rest, workers);
    if (!tiled()) {
      return bands(source, packed, rest, workers, [](int64_t) { return true; });
    }
    const WinogradCorrelation<T> winograd(direct, images);
    const Tiles& tiles = winograd.tiles;
    T* const own = rest + winograd.filters_size();
    bool* const wrong = reinterpret_cast<bool*>(
        rest + larger(workers * result.own_size(direct),
                      winograd.filters_size() + workers * winograd.own_size()));
    parallel(direct.filters.slivers(), direct.filters.size(), workers,
             [&](int64_t sliver, int) { winograd.transform_filters(packed, sliver, rest); });
    parallel(tiles.blocks(), cycles / 2, workers, [&](int64_t block, int worker) {
      wrong[block] = !winograd.run(source, block, rest, own + worker * winograd.own_size(), result);
    });
    bool any = false;
    for (int64_t block = 0; block < tiles.blocks(); ++block) any = any || wrong[block];
    if (!any) return;
    bands(source, packed, rest, workers, [&](int64_t image) {
      const int64_t last = ((image + 1) * tiles.each() - 1) / Tiles::block;
      for (int64_t block = image * tiles.each() / Tiles::block; block <= last; ++block) {
        if (wrong[block]) return true;
      }
      return false;
    });
  }

 private:
  void rows(const T* source, const T* packed, T* rest, int workers) const {
    const Few filters(direct);
    T* const own = rest + filters.weights_size();
    filters.repeat(packed, rest);
    parallel(images, cycles, workers, [&](int64_t image, int worker) {
      filters.run(source + image * source_step, rest, own + worker * filters.own_size(),
                  result.width(direct), [&](int64_t i, int64_t first, const auto& sums) {
                    result.rows(direct, image, i, first, sums);
                  });
    });
  }

  template <class Wanted>
  void bands(const T* source, const T* packed, T* rest, int workers, Wanted wanted) const {
    const int64_t count = result.bands(direct);
    parallel(images * count, cycles, workers, [&](int64_t index, int worker) {
      const int64_t image = index / count;
      if (!wanted(image)) return;
      result.band(direct, source + image * source_step, image, index % count, packed,
                  rest + worker * result.own_size(direct));
    });
  }
};

}  // namespace chainrule::CR_ISA
