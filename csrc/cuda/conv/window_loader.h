// The pixels under a sliding window, as operands of gemm.h: nothing is unfolded (im2col).
//
// Axes of images and filters, and the weights of one filter or channel, count up to most_counted;
// whatever spans a batch has 64 bits.
#pragma once

#include "core/shape.h"
#include "cuda/gemm/gemm.h"
#include "cuda/runtime/limits.h"

namespace chainrule::cuda {

constexpr int far_outside = -static_cast<int>(most_counted);

// The pixels of a batch of images in the order of a product's rows: window by window, where there
// are pooling windows (side by side), else one by one.
class Walk {
 public:
  struct Place {
    int64_t image;
    int row, column;
  };
  // A place among the windows, and the position in its window.
  struct Start {
    int64_t image;
    int row, column, position;
  };

  // Of so many windows, each so large.
  Walk(int64_t batch, int64_t down, int64_t across, int64_t window_rows = 1,
       int64_t window_columns = 1)
      : down_(down),
        across_(across),
        area_(window_rows * window_columns),
        columns_(window_columns),
        rows_(static_cast<int>(window_rows)),
        count_(batch * down * across * window_rows * window_columns) {}

  __host__ __device__ int64_t count() const { return count_; }

  __device__ Start from(int64_t index) const {
    const int64_t window = area_(index), row = across_(window), image = down_(row);
    return {image, static_cast<int>(row - image * down_.by()),
            static_cast<int>(window - row * across_.by()),
            static_cast<int>(index - window * area_.by())};
  }
  // The pixel `more` behind it.
  __device__ __forceinline__ Place after(const Start& start, int more) const {
    const int index = start.position + more, windows = area_.small(index);
    const int position = index - windows * static_cast<int>(area_.by());
    const int column = start.column + windows, rows = across_.small(column);
    const int row = start.row + rows, images = down_.small(row);
    const int r = columns_.small(position);
    const int window_row = row - images * static_cast<int>(down_.by());
    const int window_column = column - rows * static_cast<int>(across_.by());
    return {start.image + images, window_row * rows_ + r,
            window_column * static_cast<int>(columns_.by()) + position -
                r * static_cast<int>(columns_.by())};
  }
  __device__ Place at(int64_t index) const { return after(from(index), 0); }

 private:
  Divider down_, across_, area_, columns_;
  int rows_;
  int64_t count_;
};

// Where a window's corner lies in the images, or what one of its pixels adds to that.
struct Spot {
  int64_t offset;
  int row, column;
};

__device__ __forceinline__ int clamped(int64_t corner) {
  return static_cast<int>(corner < -most_counted  ? -most_counted
                          : corner > most_counted ? most_counted
                                                  : corner);
}

// The window's elements are (rows, columns, channels); its corner for the output pixel (u, v) is
// (top + u · step_rows, left + v · step_columns).
template <class T>
struct Sliding {
  const T* data;
  int height, width;
  int64_t channels;
  int64_t top, left, step_rows, step_columns;
  Walk walk;
  Divider by_channels, by_columns;
  int64_t elements;  // of a window

  __device__ Spot corner(const Walk::Place& p) const {
    const int64_t row = top + p.row * step_rows, column = left + p.column * step_columns;
    return {((p.image * height + row) * width + column) * channels, clamped(row), clamped(column)};
  }
  __device__ __forceinline__ Spot element(int k) const {
    const int pixel = by_channels.small(k), row = by_columns.small(pixel);
    const int column = pixel - row * static_cast<int>(by_columns.by());
    const int channel = k - pixel * static_cast<int>(by_channels.by());
    return {(int64_t{row} * width + column) * channels + channel, row, column};
  }
  __device__ __forceinline__ bool inside(int row, int column) const {
    return static_cast<unsigned>(row) < static_cast<unsigned>(height) &&
           static_cast<unsigned>(column) < static_cast<unsigned>(width);
  }
  __device__ __forceinline__ bool meet(const Spot& a, const Spot& b, const T*& p) const {
    p = data + (a.offset + b.offset);
    return inside(a.row + b.row, a.column + b.column);
  }
};

template <class T>
Sliding<T> sliding(const T* x, const Conv2d& s, const Walk& walk) {
  return {x,
          static_cast<int>(s.height),
          static_cast<int>(s.width),
          s.in,
          -s.pad_top,
          -s.pad_left,
          s.window.stride_rows,
          s.window.stride_columns,
          walk,
          Divider(s.in),
          Divider(s.window.columns),
          s.window.rows * s.window.columns * s.in};
}

// Rows of the product are output pixels, k runs over the window's elements.
template <class T>
struct WindowRows : Sliding<T> {
  static constexpr bool along_k = true, skips_zeros = false;
  using Row = Spot;
  using Start = int;

  __device__ Row row(int64_t i) const {
    if (i >= this->walk.count()) return {0, far_outside, far_outside};
    return this->corner(this->walk.at(i));
  }
  __device__ Start from(int64_t k) const { return static_cast<int>(k); }
  __device__ __forceinline__ Spot step(Start first, int more) const {
    return this->element(first + more);
  }
  __device__ __forceinline__ bool at(const Row& r, const Spot& step, const T*& p) const {
    return this->meet(r, step, p);
  }
};

// Columns of the product are the window's elements, k runs over output pixels.
template <class T>
struct WindowColumns : Sliding<T> {
  static constexpr bool along_k = false, skips_zeros = false;
  bool wide;
  using Row = Spot;
  using Start = Walk::Start;

  explicit WindowColumns(const Sliding<T>& window)
      : Sliding<T>(window), wide(window.channels % piece_size<T> == 0 && piecewise(window.data)) {}

  __device__ Row row(int64_t i) const {
    if (i >= this->elements) return {0, far_outside, far_outside};
    return this->element(static_cast<int>(i));
  }
  __device__ Start from(int64_t k) const { return this->walk.from(k); }
  __device__ __forceinline__ Spot step(const Start& start, int more) const {
    return this->corner(this->walk.after(start, more));
  }
  __device__ __forceinline__ bool at(const Row& r, const Spot& step, const T*& p) const {
    return this->meet(r, step, p);
  }
};

// The pixels of a stride's phase, eq. (59) turned about: along one axis of the input they meet the
// filter's taps first, first + stride, ..., and the gradient's pixels from `corner` on.
struct Phase {
  int64_t count;  // pixels phase, phase + stride, ... below the axis' length
  int64_t first, taps;
  int64_t corner;  // under the turned filter's corner, for the first of the pixels

  Phase(int64_t phase, int64_t length, int64_t stride, int64_t pad, int64_t window)
      : count(phase < length ? ceil_div(length - phase, stride) : 0),
        first((phase + pad) % stride),
        taps(first < window ? ceil_div(window - first, stride) : 0),
        corner((phase + pad - first) / stride - (taps - 1)) {}
};

// The filters, turned about, for one phase: k runs over (taps, filters), columns are channels.
template <class T>
struct TurnedFilters {
  static constexpr bool along_k = false, skips_zeros = false;
  const T* weight;
  int64_t window_rows, window_columns, channels;
  int64_t last_row, last_column, stride_rows, stride_columns;  // taps from the last one back
  Divider by_filters, by_taps;
  bool wide;

  TurnedFilters(const T* from, const Conv2d& s, const Phase& rows, const Phase& columns)
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
        wide(s.in % piece_size<T> == 0 && piecewise(from)) {}

  using Row = int64_t;
  using Start = int;
  __device__ Row row(int64_t i) const { return i < channels ? i : 0; }
  __device__ Start from(int64_t k) const { return static_cast<int>(k); }
  __device__ __forceinline__ int64_t step(Start first, int more) const {
    const int k = first + more, tap = by_filters.small(k);
    const int filter = k - tap * static_cast<int>(by_filters.by());
    const int r = by_taps.small(tap), q = tap - r * static_cast<int>(by_taps.by());
    const int64_t tap_row = last_row - r * stride_rows;
    const int64_t tap_column = last_column - q * stride_columns;
    return ((filter * window_rows + tap_row) * window_columns + tap_column) * channels;
  }
  __device__ __forceinline__ bool at(Row channel, int64_t offset, const T*& p) const {
    p = weight + (offset + channel);
    return true;
  }
};

}  // namespace chainrule::cuda
