// Pixels under a sliding window as GEMM operands: implicit GEMM, without im2col.
//
// Image axes, filter axes and the number of weights per filter or per channel are at most
// max_extent, so 32-bit arithmetic holds them. Offsets that span a batch are 64-bit.
#pragma once

#include "core/shape.h"
#include "cuda/gemm/gemm.h"
#include "cuda/runtime/limits.h"

namespace chainrule::cuda {

constexpr int outside_image = -static_cast<int>(max_extent);

// Maps GEMM row indices to pixels of a batch of images. With pooling, the order is window by window
// (windows do not overlap). Without pooling it is pixel by pixel.
class PixelIndexer {
 public:
  struct Pixel {
    int64_t image;
    int row, column;
  };
  // Position among the windows, and within the window.
  struct Start {
    int64_t image;
    int row, column, position;
  };

  // rows x columns windows per image, each of window_rows x window_columns pixels.
  PixelIndexer(int64_t batch, int64_t down, int64_t across, int64_t window_rows = 1,
               int64_t window_columns = 1)
      : rows_per_image_(down),
        columns_per_image_(across),
        window_area_(window_rows * window_columns),
        window_columns_(window_columns),
        window_rows_(static_cast<int>(window_rows)),
        count_(batch * down * across * window_rows * window_columns) {}

  __host__ __device__ int64_t count() const { return count_; }

  __device__ Start start(int64_t index) const {
    const int64_t window = window_area_.divide(index), row = columns_per_image_.divide(window),
                  image = rows_per_image_.divide(row);
    return {image, static_cast<int>(row - image * rows_per_image_.divisor()),
            static_cast<int>(window - row * columns_per_image_.divisor()),
            static_cast<int>(index - window * window_area_.divisor())};
  }
  // Returns the pixel `offset` indices after `start`.
  __device__ __forceinline__ Pixel advance(const Start& start, int offset) const {
    const int index = start.position + offset, windows = window_area_.divide31(index);
    const int position = index - windows * static_cast<int>(window_area_.divisor());
    const int column = start.column + windows, rows = columns_per_image_.divide31(column);
    const int row = start.row + rows, images = rows_per_image_.divide31(row);
    const int r = window_columns_.divide31(position);
    const int window_row = row - images * static_cast<int>(rows_per_image_.divisor());
    const int window_column = column - rows * static_cast<int>(columns_per_image_.divisor());
    return {start.image + images, window_row * window_rows_ + r,
            window_column * static_cast<int>(window_columns_.divisor()) + position -
                r * static_cast<int>(window_columns_.divisor())};
  }
  __device__ Pixel pixel(int64_t index) const { return advance(start(index), 0); }

 private:
  FastDivisor rows_per_image_, columns_per_image_, window_area_, window_columns_;
  int window_rows_;
  int64_t count_;
};

// Position of a window's corner in the images, or offset of an element from that corner.
struct PixelOffset {
  int64_t offset;
  int row, column;
};

__device__ __forceinline__ int clamp_coordinate(int64_t corner) {
  return static_cast<int>(corner < -max_extent  ? -max_extent
                          : corner > max_extent ? max_extent
                                                : corner);
}

// Window elements are ordered (rows, columns, channels). The window's corner for output pixel (u,
// v) is (top + u · step_rows, left + v · step_columns).
template <class T>
struct SlidingWindow {
  const T* data;
  int height, width;
  int64_t channels;
  int64_t top, left, step_rows, step_columns;
  PixelIndexer indexer;
  FastDivisor by_channels, by_columns;
  int64_t elements;  // per window

  __device__ PixelOffset corner(const PixelIndexer::Pixel& p) const {
    const int64_t row = top + p.row * step_rows, column = left + p.column * step_columns;
    return {((p.image * height + row) * width + column) * channels, clamp_coordinate(row),
            clamp_coordinate(column)};
  }
  __device__ __forceinline__ PixelOffset element(int k) const {
    const int pixel = by_channels.divide31(k), row = by_columns.divide31(pixel);
    const int column = pixel - row * static_cast<int>(by_columns.divisor());
    const int channel = k - pixel * static_cast<int>(by_channels.divisor());
    return {(int64_t{row} * width + column) * channels + channel, row, column};
  }
  __device__ __forceinline__ bool inside(int row, int column) const {
    return static_cast<unsigned>(row) < static_cast<unsigned>(height) &&
           static_cast<unsigned>(column) < static_cast<unsigned>(width);
  }
  // Sets p to the element at corner a and offset b. Returns false for padding.
  __device__ __forceinline__ bool address(const PixelOffset& a, const PixelOffset& b,
                                          const T*& p) const {
    p = data + (a.offset + b.offset);
    return inside(a.row + b.row, a.column + b.column);
  }
};

template <class T>
SlidingWindow<T> make_sliding_window(const T* x, const Conv2d& s, const PixelIndexer& indexer) {
  return {x,
          static_cast<int>(s.height),
          static_cast<int>(s.width),
          s.in,
          -s.pad_top,
          -s.pad_left,
          s.window.stride_rows,
          s.window.stride_columns,
          indexer,
          FastDivisor(s.in),
          FastDivisor(s.window.columns),
          s.window.rows * s.window.columns * s.in};
}

// GEMM rows are output pixels; k runs over the window elements.
template <class T>
struct WindowRowLoader : SlidingWindow<T> {
  static constexpr bool k_contiguous = true, skips_zeros = false;
  using Row = PixelOffset;
  using Start = int;

  __device__ Row row(int64_t i) const {
    if (i >= this->indexer.count()) return {0, outside_image, outside_image};
    return this->corner(this->indexer.pixel(i));
  }
  __device__ Start start(int64_t k) const { return static_cast<int>(k); }
  __device__ __forceinline__ PixelOffset step(Start first, int offset) const {
    return this->element(first + offset);
  }
};

// GEMM columns are window elements; k runs over the output pixels.
template <class T>
struct WindowColumnLoader : SlidingWindow<T> {
  static constexpr bool k_contiguous = false, skips_zeros = false;
  bool vectorized;
  using Row = PixelOffset;
  using Start = PixelIndexer::Start;

  explicit WindowColumnLoader(const SlidingWindow<T>& window)
      : SlidingWindow<T>(window),
        vectorized(window.channels % vector_width<T> == 0 && is_aligned16(window.data)) {}

  __device__ Row row(int64_t i) const {
    if (i >= this->elements) return {0, outside_image, outside_image};
    return this->element(static_cast<int>(i));
  }
  __device__ Start start(int64_t k) const { return this->indexer.start(k); }
  __device__ __forceinline__ PixelOffset step(const Start& start, int offset) const {
    return this->corner(this->indexer.advance(start, offset));
  }
};

// One phase of a strided backward convolution, along one axis (eq. 59, with the filter flipped).
// The phase's input pixels are phase, phase + stride, ... Their gradient is a sum over the taps
// first, first + stride, ... and over output pixels from `corner` on.
struct StridePhase {
  int64_t count;  // pixels of the phase within the axis length
  int64_t first, taps;
  int64_t corner;  // output index under the flipped filter's corner, for the phase's first pixel

  StridePhase(int64_t phase, int64_t length, int64_t stride, int64_t pad, int64_t window)
      : count(phase < length ? ceil_div(length - phase, stride) : 0),
        first((phase + pad) % stride),
        taps(first < window ? ceil_div(window - first, stride) : 0),
        corner((phase + pad - first) / stride - (taps - 1)) {}
};

// Flipped filters of one phase: k runs over (taps, filters), GEMM columns are channels.
template <class T>
struct FlippedFilterLoader {
  static constexpr bool k_contiguous = false, skips_zeros = false;
  const T* weight;
  int64_t window_rows, window_columns, channels;
  int64_t last_row, last_column, stride_rows, stride_columns;  // taps, from the last one backward
  FastDivisor by_filters, by_taps;
  bool vectorized;

  FlippedFilterLoader(const T* from, const Conv2d& s, const StridePhase& rows,
                      const StridePhase& columns)
      : weight(from),
        window_rows(s.window.rows),
        window_columns(s.window.columns),
        channels(s.in),
        last_row(rows.first + (rows.taps - 1) * s.window.stride_rows),
        last_column(columns.first + (columns.taps - 1) * s.window.stride_columns),
        stride_rows(s.window.stride_rows),
        stride_columns(s.window.stride_columns),
        by_filters(s.out),
        by_taps(columns.taps),
        vectorized(s.in % vector_width<T> == 0 && is_aligned16(from)) {}

  using Row = int64_t;
  using Start = int;
  __device__ Row row(int64_t i) const { return i < channels ? i : 0; }
  __device__ Start start(int64_t k) const { return static_cast<int>(k); }
  __device__ __forceinline__ int64_t step(Start first, int offset) const {
    const int k = first + offset, tap = by_filters.divide31(k);
    const int filter = k - tap * static_cast<int>(by_filters.divisor());
    const int r = by_taps.divide31(tap), q = tap - r * static_cast<int>(by_taps.divisor());
    const int64_t tap_row = last_row - r * stride_rows;
    const int64_t tap_column = last_column - q * stride_columns;
    return ((filter * window_rows + tap_row) * window_columns + tap_column) * channels;
  }
  __device__ __forceinline__ bool address(Row channel, int64_t offset, const T*& p) const {
    p = weight + (offset + channel);
    return true;
  }
};

}  // namespace chainrule::cuda
