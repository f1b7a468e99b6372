// The gradient by a convolution's output, read from the pooled one and the maxima's places as
// operands of gemm.h: a window's gradient where its maximum stood, zero elsewhere. Such a zero is
// no number: its products with infinity or NaN count as nothing.
#pragma once

#include "cuda/conv/window_loader.h"

namespace chainrule::cuda {

template <class T>
struct Pooled {
  const T* dy;
  const uint16_t* argmax;
  int64_t filters, windows;  // the windows of the batch
  int down, across;          // of an image
  Divider by_rows, by_columns, by_area;

  Pooled(const T* gradient, const uint16_t* places, const MaxPool2d& p)
      : dy(gradient),
        argmax(places),
        filters(p.channels),
        windows(p.batch * p.out_height * p.out_width),
        down(static_cast<int>(p.out_height)),
        across(static_cast<int>(p.out_width)),
        by_rows(p.window.rows),
        by_columns(p.window.columns),
        by_area(p.window.rows * p.window.columns) {}
};

// Rows of the product are pixels of one phase of dx, k runs over (taps, filters).
template <class T>
struct UnpooledRows {
  static constexpr bool along_k = true, skips_zeros = true;
  Pooled<T> pooled;
  Sliding<T> window;
  int rows, columns;  // that windows cover

  UnpooledRows(const Pooled<T>& from, const Sliding<T>& seen)
      : pooled(from),
        window(seen),
        rows(static_cast<int>(from.down * from.by_rows.by())),
        columns(static_cast<int>(from.across * from.by_columns.by())) {}

  struct Row {
    int64_t image;  // where its windows begin
    int row, column;
  };
  struct Step {
    int filter, row, column;
  };
  using Start = int;
  __device__ Row row(int64_t i) const {
    if (i >= window.walk.count()) return {0, far_outside, far_outside};
    const Walk::Place p = window.walk.at(i);
    return {p.image * pooled.down * pooled.across * pooled.filters, clamped(window.top + p.row),
            clamped(window.left + p.column)};
  }
  __device__ Start from(int64_t k) const { return static_cast<int>(k); }
  __device__ __forceinline__ Step step(Start first, int more) const {
    const int k = first + more, tap = window.by_channels.small(k);
    const int y = window.by_columns.small(tap);
    return {k - tap * static_cast<int>(window.by_channels.by()), y,
            tap - y * static_cast<int>(window.by_columns.by())};
  }
  __device__ __forceinline__ bool at(const Row& r, const Step& step, const T*& p) const {
    p = pooled.dy;
    const int y = r.row + step.row, x = r.column + step.column;
    if (y < 0 || y >= rows || x < 0 || x >= columns) return false;
    const int i = pooled.by_rows.small(y), j = pooled.by_columns.small(x);
    const int width = static_cast<int>(pooled.by_columns.by());
    const int place = (y - i * static_cast<int>(pooled.by_rows.by())) * width + x - j * width;
    const int64_t offset =
        r.image + (int64_t{i} * pooled.across + j) * pooled.filters + step.filter;
    p += offset;
    return pooled.argmax[offset] == place;
  }
};

// Rows of the product are filters, k runs over the windows and their places.
template <class T>
struct UnpooledColumns {
  static constexpr bool along_k = false, skips_zeros = true, wide = false;
  Pooled<T> pooled;

  using Row = int64_t;
  struct Step {
    int64_t offset;
    int place;
  };
  struct Start {
    int64_t window;
    int position;
  };
  __device__ Row row(int64_t i) const { return i < pooled.filters ? i : 0; }
  __device__ Start from(int64_t k) const {
    const int64_t window = pooled.by_area(k);
    return {window, static_cast<int>(k - window * pooled.by_area.by())};
  }
  __device__ __forceinline__ Step step(const Start& start, int more) const {
    const int index = start.position + more, windows = pooled.by_area.small(index);
    const int64_t window = start.window + windows;
    // Behind the last window there is nothing to read.
    const int place = index - windows * static_cast<int>(pooled.by_area.by());
    return {window * pooled.filters, window < pooled.windows ? place : -1};
  }
  __device__ __forceinline__ bool at(Row filter, const Step& step, const T*& p) const {
    const int64_t offset = step.offset + filter;
    p = pooled.dy + offset;
    return step.place >= 0 && pooled.argmax[offset] == step.place;
  }
};

}  // namespace chainrule::cuda
