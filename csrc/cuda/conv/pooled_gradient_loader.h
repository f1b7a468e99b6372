// Gradient of a convolution's output as a GEMM operand, read from the pooled gradient and argmax.
// The element is the window's gradient at the position of its maximum, and 0 elsewhere. Such zeros
// are structural: their products with infinity or NaN contribute nothing.
#pragma once

#include "cuda/conv/window_loader.h"

namespace chainrule::cuda {

template <class T>
struct PooledGradient {
  const T* dy;
  const uint16_t* argmax;
  int64_t filters, windows;         // windows of the batch
  int pooled_rows, pooled_columns;  // per image
  FastDivisor by_rows, by_columns, by_area;

  PooledGradient(const T* gradient, const uint16_t* argmax_values, const MaxPool2d& p)
      : dy(gradient),
        argmax(argmax_values),
        filters(p.channels),
        windows(p.batch * p.out_height * p.out_width),
        pooled_rows(static_cast<int>(p.out_height)),
        pooled_columns(static_cast<int>(p.out_width)),
        by_rows(p.window.rows),
        by_columns(p.window.columns),
        by_area(p.window.rows * p.window.columns) {}
};

// GEMM rows are pixels of one phase of dx; k runs over (taps, filters).
template <class T>
struct PooledGradientRowLoader {
  static constexpr bool k_contiguous = true, skips_zeros = true;
  PooledGradient<T> pooled;
  SlidingWindow<T> window;
  int covered_rows, covered_columns;  // pixels covered by pooling windows

  PooledGradientRowLoader(const PooledGradient<T>& from, const SlidingWindow<T>& seen)
      : pooled(from),
        window(seen),
        covered_rows(static_cast<int>(from.pooled_rows * from.by_rows.divisor())),
        covered_columns(static_cast<int>(from.pooled_columns * from.by_columns.divisor())) {}

  struct Row {
    int64_t image;  // offset of the image's first window
    int row, column;
  };
  struct Step {
    int filter, row, column;
  };
  using Start = int;
  __device__ Row row(int64_t i) const {
    if (i >= window.indexer.count()) return {0, outside_image, outside_image};
    const PixelIndexer::Pixel p = window.indexer.pixel(i);
    return {p.image * pooled.pooled_rows * pooled.pooled_columns * pooled.filters,
            clamp_coordinate(window.top + p.row), clamp_coordinate(window.left + p.column)};
  }
  __device__ Start start(int64_t k) const { return static_cast<int>(k); }
  __device__ __forceinline__ Step step(Start first, int offset_k) const {
    const int k = first + offset_k, tap = window.by_channels.divide31(k);
    const int y = window.by_columns.divide31(tap);
    return {k - tap * static_cast<int>(window.by_channels.divisor()), y,
            tap - y * static_cast<int>(window.by_columns.divisor())};
  }
  __device__ __forceinline__ bool address(const Row& r, const Step& step, const T*& p) const {
    p = pooled.dy;
    const int y = r.row + step.row, x = r.column + step.column;
    if (y < 0 || y >= covered_rows || x < 0 || x >= covered_columns) return false;
    const int i = pooled.by_rows.divide31(y), j = pooled.by_columns.divide31(x);
    const int width = static_cast<int>(pooled.by_columns.divisor());
    const int window_position =
        (y - i * static_cast<int>(pooled.by_rows.divisor())) * width + x - j * width;
    const int64_t offset =
        r.image + (int64_t{i} * pooled.pooled_columns + j) * pooled.filters + step.filter;
    p += offset;
    return pooled.argmax[offset] == window_position;
  }
};

// GEMM rows are filters; k runs over (windows, positions in the window).
template <class T>
struct PooledGradientColumnLoader {
  static constexpr bool k_contiguous = false, skips_zeros = true, vectorized = false;
  PooledGradient<T> pooled;

  using Row = int64_t;
  struct Step {
    int64_t offset;
    int window_position;
  };
  struct Start {
    int64_t window;
    int position;
  };
  __device__ Row row(int64_t i) const { return i < pooled.filters ? i : 0; }
  __device__ Start start(int64_t k) const {
    const int64_t window = pooled.by_area.divide(k);
    return {window, static_cast<int>(k - window * pooled.by_area.divisor())};
  }
  __device__ __forceinline__ Step step(const Start& start, int offset_k) const {
    const int index = start.position + offset_k, windows = pooled.by_area.divide31(index);
    const int64_t window = start.window + windows;
    // Past the last window nothing may be read.
    const int window_position = index - windows * static_cast<int>(pooled.by_area.divisor());
    return {window * pooled.filters, window < pooled.windows ? window_position : -1};
  }
  __device__ __forceinline__ bool address(Row filter, const Step& step, const T*& p) const {
    const int64_t offset = step.offset + filter;
    p = pooled.dy + offset;
    return step.window_position >= 0 && pooled.argmax[offset] == step.window_position;
  }
};

}  // namespace chainrule::cuda
