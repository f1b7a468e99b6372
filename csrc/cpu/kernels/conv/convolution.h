// A convolution of a batch of images, forward or backward input. The algorithm is Winograd or
// few_channels.h if the shape supports it, else the implicit GEMM, one band of rows at a time. The
// output policy `Output` stores the results. StoreOutput stores all of them. PoolOutput stores the
// maximum of each pooling window, so that the unpooled output never leaves the cache.
#pragma once

#include "cpu/convolution_precision.h"
#include "cpu/kernels/conv/few_channels.h"
#include "cpu/kernels/conv/winograd.h"
#include "cpu/kernels/window_max.h"

namespace chainrule::CR_ISA {

inline int64_t convolution_cycles(const Conv2d& s, int width) {
  return s.batch * s.out_height * s.out_width * s.out * s.in * s.window.rows * s.window.columns /
         width / 2;
}

template <class T>
ImplicitGemm<T> forward_gemm(const Conv2d& s) {
  return {
      .image = {s.height, s.width, s.in},
      .window_rows = s.window.rows,
      .window_columns = s.window.columns,
      .top = -s.pad_top,
      .left = -s.pad_left,
      .stride_rows = s.window.stride_rows,
      .stride_columns = s.window.stride_columns,
      .out_rows = s.out_height,
      .out_columns = s.out_width,
      .output_row_stride = s.out_width * s.out,
      .output_column_stride = s.out,
      .filters = {s.window.rows * s.window.columns * s.in, s.out},
  };
}

template <class T>
struct StoreOutput {
  T* target;
  int64_t image_stride;

  // The rows of the convolution that are needed, and the rows of a band.
  static int64_t rows(const ImplicitGemm<T>& c) { return c.out_rows; }
  static int64_t band_rows(const ImplicitGemm<T>& c) { return c.band_rows(); }
  // The implicit GEMM writes a band to band_target(). store_band() then processes it. Here the
  // target is the final place.
  static int64_t buffer_size(const ImplicitGemm<T>&) { return 0; }
  T* band_target(const ImplicitGemm<T>& c, int64_t image, int64_t first, T*) const {
    return target + image * image_stride + first * c.output_row_stride;
  }
  static void store_band(const ImplicitGemm<T>&, int64_t, int64_t, int64_t, const T*) {}

  static constexpr bool supports_winograd = true;
  template <class Lanes>
  CR_INLINE void store_tile(const ImplicitGemm<T>& c, const TileOrigin& at, int64_t k, Lanes lanes,
                            const Vec<T> (&y)[4][4]) const {
    T* const corner = target + at.image * image_stride + at.row * c.output_row_stride +
                      at.column * c.output_column_stride + k;
    for (int i = 0; i < 4 && at.row + i < c.out_rows; ++i) {
      for (int j = 0; j < 4 && at.column + j < c.out_columns; ++j) {
        lanes.store(y[i][j], corner + i * c.output_row_stride + j * c.output_column_stride);
      }
    }
  }

  using FewChannels = FewChannelConv<T, CR_REGISTERS / 4, 1>;
  static constexpr bool supports_few_channels = true;
  static int64_t width(const ImplicitGemm<T>& c) { return c.out_columns; }

  CR_INLINE void store_rows(const ImplicitGemm<T>& c, int64_t image, int64_t group, int64_t first,
                            const typename FewChannels::Sums& sums) const {
    constexpr int count = CR_REGISTERS / 4;
    T* to = target + image * image_stride + count * group * c.output_row_stride + first;
    for (int i = 0; i < count && count * group + i < c.out_rows; ++i, to += c.output_row_stride) {
      for_each_vector_unrolled<T, FewChannels::vectors>(
          c.out_columns * c.filters.columns - first,
          [&](int v, auto lanes) { lanes.store(sums[i][0][v], to + v * Vec<T>::width); });
    }
  }
};

// The pooling windows do not overlap.
template <class T>
struct PoolOutput {
  T* y;
  uint16_t* argmax;
  MaxPool2d s;  // its input is the output of the convolution

  int64_t rows(const ImplicitGemm<T>&) const { return s.out_height * s.window.rows; }
  int64_t band_rows(const ImplicitGemm<T>& c) const { return pooled_rows(c) * s.window.rows; }
  // A band of the convolution's output, which store_band() pools.
  int64_t buffer_size(const ImplicitGemm<T>& c) const {
    return round_up(band_rows(c) * s.width * s.channels, 16);
  }
  static T* band_target(const ImplicitGemm<T>&, int64_t, int64_t, T* buffer) { return buffer; }
  void store_band(const ImplicitGemm<T>& c, int64_t image, int64_t first, int64_t rows,
                  const T* buffer) const {
    const int64_t out_row = s.out_width * s.channels;
    const int64_t to = (image * s.out_height + first / s.window.rows) * out_row;
    for (int64_t i = 0; i < rows / s.window.rows; ++i) {
      max_pool_row(buffer + i * s.window.rows * c.output_row_stride, y + to + i * out_row,
                   argmax + to + i * out_row, s);
    }
  }

  bool supports_winograd = s.window.rows == 2 && s.window.columns == 2;
  template <class Lanes>
  CR_INLINE void store_tile(const ImplicitGemm<T>&, const TileOrigin& at, int64_t k, Lanes lanes,
                            const Vec<T> (&v)[4][4]) const {
    const int64_t top = at.row / 2, left = at.column / 2;
    for (int i = 0; i < 2 && top + i < s.out_height; ++i) {
      for (int j = 0; j < 2 && left + j < s.out_width; ++j) {
        RunningArgmax<T> maximum(v[2 * i][2 * j]);
        for (int p = 1; p < 4; ++p) maximum.update(v[2 * i + p / 2][2 * j + p % 2], p);
        const int64_t row = at.image * s.out_height + top + i;
        const int64_t to = (row * s.out_width + left + j) * s.channels + k;
        maximum.store(lanes, y + to, argmax + to);
      }
    }
  }

  static constexpr int few_rows = CR_REGISTERS / 16;  // pooled rows per block
  using FewChannels = FewChannelConv<T, 2 * few_rows, 2>;
  bool supports_few_channels = supports_winograd;
  int64_t width(const ImplicitGemm<T>&) const { return s.out_width; }

  CR_INLINE void store_rows(const ImplicitGemm<T>&, int64_t image, int64_t group, int64_t first,
                            const typename FewChannels::Sums& sums) const {
    for (int i = 0; i < few_rows && few_rows * group + i < s.out_height; ++i) {
      const int64_t row = image * s.out_height + few_rows * group + i;
      const int64_t to = row * s.out_width * s.channels + first;
      for_each_vector_unrolled<T, FewChannels::vectors>(
          s.out_width * s.channels - first, [&](int v, auto lanes) {
            RunningArgmax<T> maximum(sums[2 * i][0][v]);
            for (int p = 1; p < 4; ++p) maximum.update(sums[2 * i + p / 2][p % 2][v], p);
            const int64_t at = to + v * Vec<T>::width;
            maximum.store(lanes, y + at, argmax + at);
          });
    }
  }

 private:
  int64_t pooled_rows(const ImplicitGemm<T>& c) const {  // per band
    const int64_t fit = ImplicitGemm<T>::band_pixels / max(1, s.window.rows * c.out_columns);
    return min(max(1, s.out_height), max(1, fit));
  }
};

// The workspace begins with the packed filters.
template <class T, class Output>
struct Convolution {
  ImplicitGemm<T> gemm;
  int64_t images, source_stride, cycles;
  Output output;

  int64_t packed_size() const { return round_up(gemm.filters.size(), 16); }
  using FewChannels = typename Output::FewChannels;
  bool uses_few_channels() const {
    return output.supports_few_channels && FewChannels(gemm).supports();
  }
  bool uses_winograd() const {
    return output.supports_winograd && WinogradTiles::supports(images, gemm);
  }

  int64_t workspace_size(int workers) const {
    int64_t more = workers * band_scratch_size();
    if (uses_few_channels())
      more = FewChannels(gemm).weights_size() + workers * FewChannels(gemm).worker_scratch_size();
    if (uses_winograd()) {
      const WinogradConvolution<T> winograd(gemm, images);
      // The implicit GEMM uses the same memory when it recomputes an image.
      more = max(more, winograd.filters_size() + workers * winograd.worker_scratch_size()) +
             WinogradReports(winograd).size();
    }
    return (packed_size() + more) * static_cast<int64_t>(sizeof(T));
  }

  // `weight` is (filters, rows, columns, channels).
  void pack_filters(const T* weight, const Workspace& workspace) const {
    const PackedMatrix<T>& filters = gemm.filters;
    parallel_for(filters.panels(), filters.size(), workspace.workers, [&](int64_t panel, int) {
      pack_panel(weight, filters.depth, true, filters, panel, 0, filters.depth,
                 static_cast<T*>(workspace.data));
    });
  }

  void run(const T* source, const Workspace& workspace) const {
    const int workers = workspace.workers;
    const T* const packed = static_cast<const T*>(workspace.data);
    T* const scratch = static_cast<T*>(workspace.data) + packed_size();
    if (uses_few_channels()) return run_few_channels(source, packed, scratch, workers);
    const auto all = [](int64_t) { return true; };
    if (!uses_winograd() || convolution_precision() == ConvolutionPrecision::highest) {
      return run_implicit_gemm(source, packed, scratch, workers, all);
    }
    const WinogradConvolution<T> winograd(gemm, images);
    const WinogradTiles& tiles = winograd.tiles;
    T* const worker_scratch = scratch + winograd.filters_size();
    const WinogradReports layout(winograd);
    T* const levels =
        scratch + max(workers * band_scratch_size(),
                      winograd.filters_size() + workers * winograd.worker_scratch_size());
    auto* const reports = reinterpret_cast<WinogradReport*>(levels + layout.levels);
    bool* const direct = reinterpret_cast<bool*>(levels + layout.levels + layout.reports);
    parallel_for(gemm.filters.panels(), gemm.filters.size(), workers, [&](int64_t panel, int) {
      winograd.transform_filters(packed, panel, scratch);
      levels[panel] = filter_level(gemm.filters, packed, panel);
    });
    T level = levels[0];
    for (int64_t panel = 1; panel < gemm.filters.panels(); ++panel) {
      if (levels[panel] < level) level = levels[panel];
    }
    if (level < T(0)) return run_implicit_gemm(source, packed, scratch, workers, all);
    parallel_for(tiles.blocks(), cycles / 2, workers, [&](int64_t block, int worker) {
      winograd.run(source, block, scratch, worker_scratch + worker * winograd.worker_scratch_size(),
                   reports, output);
    });
    bool any = false;
    for (int64_t image = 0; image < images; ++image) {
      direct[image] = !winograd.accurate(reports, image, level);
      any = any || direct[image];
    }
    if (!any) return;
    run_implicit_gemm(source, packed, scratch, workers,
                      [&](int64_t image) { return direct[image]; });
  }

 private:
  using WinogradReport = typename WinogradConvolution<T>::Report;
  // Elements of T: the level of each panel of filters, the reports, and a flag per image.
  struct WinogradReports {
    int64_t levels, reports, flags;

    explicit WinogradReports(const WinogradConvolution<T>& winograd)
        : levels(round_up(winograd.gemm.filters.panels(), 16)),
          reports(elements(winograd.reports() * static_cast<int64_t>(sizeof(WinogradReport)))),
          flags(elements(winograd.tiles.batch)) {}
    int64_t size() const { return levels + reports + flags; }
    static int64_t elements(int64_t bytes) {
      return round_up(ceil_div(bytes, static_cast<int64_t>(sizeof(T))), 16);
    }
  };

  void run_few_channels(const T* source, const T* packed, T* scratch, int workers) const {
    const FewChannels filters(gemm);
    T* const worker_scratch = scratch + filters.weights_size();
    filters.pack_weights(packed, scratch);
    parallel_for(images, cycles, workers, [&](int64_t image, int worker) {
      filters.run(source + image * source_stride, scratch,
                  worker_scratch + worker * filters.worker_scratch_size(), output.width(gemm),
                  [&](int64_t group, int64_t first, const auto& sums) {
                    output.store_rows(gemm, image, group, first, sums);
                  });
    });
  }

  // The scratch memory of a worker of the implicit GEMM: the output's buffer and the padded input.
  int64_t band_scratch_size() const {
    return output.buffer_size(gemm) + gemm.scratch_size(output.band_rows(gemm));
  }

  // Computes the images for which selected(image) is true.
  template <class Selected>
  void run_implicit_gemm(const T* source, const T* packed, T* scratch, int workers,
                         Selected selected) const {
    const int64_t rows = output.rows(gemm), band_rows = output.band_rows(gemm);
    const int64_t bands = ceil_div(rows, band_rows);
    parallel_for(images * bands, cycles, workers, [&](int64_t index, int worker) {
      const int64_t image = index / bands, first = index % bands * band_rows;
      if (!selected(image)) return;
      const int64_t count = min(band_rows, rows - first);
      T* const buffer = scratch + worker * band_scratch_size();
      gemm.run(source + image * source_stride, first, count, packed,
               output.band_target(gemm, image, first, buffer), buffer + output.buffer_size(gemm));
      output.store_band(gemm, image, first, count, buffer);
    });
  }
};

}  // namespace chainrule::CR_ISA
