// Convolutions over few channels, such as an image's one or three: a product would spend its tile
// on columns and depth that are not there. The pixels that a band of output rows sees are copied to
// shared memory with their border of zeros, so the loops need no test for it.
#pragma once

#include "cuda/conv/window_loader.h"
#include "cuda/gemm/epilogue.h"
#include "cuda/gemm/gemm_launch.h"

namespace chainrule::cuda {

constexpr int direct_threads = 256, direct_memory = 40 << 10;  // bytes
constexpr int group_filters = 32;                              // that one block works on
constexpr int64_t most_channels = 4, most_elements = 128;

// Bands of rows of windows (of single pixels where nothing is pooled), and what they see. All that
// is counted within a band fits in shared memory.
template <class T>
struct Bands {
  bool fit = false;
  Sliding<T> window;
  int elements = 0;                     // of a sliding window
  int pool_rows = 1, pool_columns = 1;  // pixels of a pooling window
  int across = 0, down = 0;             // windows of an image
  int rows = 0, each = 0;               // rows of windows in a band; bands of an image
  int seen_rows = 0, row_size = 0;      // elements of x in a row
  int64_t images = 0;
  Divider by_across, by_area, by_pool_columns, by_row_size, by_channels;
  int lanes = 1;  // threads side by side on four filters each
  int64_t filters = 0, groups = 0;

  // Windows of p, the convolution's pixels as they are being windows of one. `taken` elements of
  // the shared memory are not for pixels.
  Bands(const T* x, const Conv2d& s, const MaxPool2d& p, int64_t taken)
      : window(
            sliding(x, s, {s.batch, p.out_height, p.out_width, p.window.rows, p.window.columns})) {
    const int64_t room = direct_memory / static_cast<int64_t>(sizeof(T)) - taken;
    const int64_t size = window.elements;
    if (s.in > most_channels || size > most_elements || window.walk.count() == 0 || size == 0 ||
        s.out == 0) {
      return;
    }
    if (larger(s.window.stride_rows, s.window.stride_columns) > direct_memory) return;
    const int64_t row =
        ((p.out_width * p.window.columns - 1) * s.window.stride_columns + s.window.columns) * s.in;
    const auto seen = [&](int64_t of) {
      return (of * p.window.rows - 1) * s.window.stride_rows + s.window.rows;
    };
    if (row > room || seen(1) * row > room) return;
    int64_t most = ceil_div(band_pixels, p.window.rows * p.out_width * p.window.columns);
    while (most > 1 && seen(most) * row > room) --most;
    most = ceil_div(p.out_height, ceil_div(p.out_height, most));
    groups = ceil_div(s.out, group_filters);
    if (s.batch * ceil_div(p.out_height, most) >= INT32_MAX / groups) return;  // of a grid
    fit = true;
    elements = static_cast<int>(size);
    pool_rows = static_cast<int>(p.window.rows);
    pool_columns = static_cast<int>(p.window.columns);
    across = static_cast<int>(p.out_width);
    down = static_cast<int>(p.out_height);
    rows = static_cast<int>(most);
    each = static_cast<int>(ceil_div(p.out_height, most));
    seen_rows = static_cast<int>(seen(most));
    row_size = static_cast<int>(row);
    images = s.batch;
    by_across = Divider(across);
    by_area = Divider(pool_rows * pool_columns);
    by_pool_columns = Divider(pool_columns);
    by_row_size = Divider(row_size);
    by_channels = Divider(s.in);
    filters = s.out;
    while (4 * lanes < smaller(s.out, group_filters)) lanes *= 2;
  }

  int64_t count() const { return images * each; }

  __device__ int windows(int band) const {
    return (down - band * rows < rows ? down - band * rows : rows) * across;
  }
  // The windows of the batch before this band.
  __device__ int64_t before(int64_t image, int band) const {
    return (image * down + band * rows) * across;
  }

  __device__ void load(int64_t image, int band, T* pixels) const {
    const int64_t top = window.top + int64_t{band} * rows * pool_rows * window.step_rows;
    const T* const from = window.data + image * window.height * window.width * window.channels;
    const int channels = static_cast<int>(window.channels);
    for (int i = static_cast<int>(threadIdx.x); i < seen_rows * row_size; i += direct_threads) {
      const int r = by_row_size.small(i), in_row = i - r * row_size;
      const int c = by_channels.small(in_row);
      const int64_t row = top + r, column = window.left + c;
      const bool inside = row >= 0 && row < window.height && column >= 0 && column < window.width;
      const int64_t at = (row * window.width + column) * channels + in_row - c * channels;
      pixels[i] = inside ? from[at] : T(0);
    }
  }

  __device__ __forceinline__ int step(int down_by, int across_by) const {
    return down_by * static_cast<int>(window.step_rows) * row_size +
           across_by * static_cast<int>(window.step_columns * window.channels);
  }
  // Where the sliding window's corner lies for a pooling window's first pixel, and for its others.
  __device__ __forceinline__ int corner(int index) const {
    const int row = by_across.small(index);
    return step(row * pool_rows, (index - row * across) * pool_columns);
  }
  __device__ __forceinline__ int place(int position) const {
    const int row = by_pool_columns.small(position);
    return step(row, position - row * pool_columns);
  }
  // Where element k of the sliding window lies from its corner.
  __device__ __forceinline__ int element(int k) const {
    const int in_row = static_cast<int>(window.by_columns.by() * window.channels);
    return k / in_row * row_size + k % in_row;
  }

 private:
  static constexpr int64_t band_pixels = 256;
};

// No pooling: every pixel a window.
inline MaxPool2d unpooled(const Conv2d& s) {
  return {s.batch, s.out_height, s.out_width, s.out, {1, 1, 1, 1}, s.out_height, s.out_width};
}

// A thread has two squares: four pixels next to each other in the walk's order, and four filters.
template <class T, class Result>
__global__ void __launch_bounds__(direct_threads, sizeof(T) == 4 ? 2 : 1)
    direct_forward(Bands<T> bands, const T* weight, Result result) {
  alignas(16) __shared__ T memory[direct_memory / sizeof(T)];
  const int thread = static_cast<int>(threadIdx.x), columns = 4 * bands.lanes;
  const int64_t unit = blockIdx.x / bands.groups;
  const int64_t first_filter = (blockIdx.x - unit * bands.groups) * group_filters;
  const int64_t image = unit / bands.each;
  const int band = static_cast<int>(unit - image * bands.each);
  T *const weights = memory, *const pixels = memory + bands.elements * columns;
  for (int i = thread; i < bands.elements * columns; i += direct_threads) {
    const int64_t filter = first_filter + i % columns;
    weights[i] = filter < bands.filters ? weight[filter * bands.elements + i / columns] : T(0);
  }
  bands.load(image, band, pixels);
  __syncthreads();
  const int area = bands.pool_rows * bands.pool_columns, count = bands.windows(band) * area;
  const int64_t before = bands.before(image, band) * area;
  const int groups = direct_threads / bands.lanes, lane = thread % bands.lanes;
  const int in_row = static_cast<int>(bands.window.by_columns.by() * bands.window.channels);
  const int64_t filter = first_filter + 4 * lane;
  for (int square = thread / bands.lanes; 4 * square < count; square += 2 * groups) {
    T sums[2][4][4] = {};
    int corners[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int index = 4 * (square + i / 4 * groups) + i % 4, last = count - 1;
      const int pixel = index < last ? index : last, pool = bands.by_area.small(pixel);
      corners[i] = bands.corner(pool) + bands.place(pixel - pool * area);
    }
    const T* w = weights + 4 * lane;
    for (int base = 0, k = 0; k < bands.elements; base += bands.row_size) {
      for (int e = base; e < base + in_row; ++e, ++k, w += columns) {
        T right[4];
        load_four(w, right);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const T left = pixels[corners[i] + e];
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            sums[i / 4][i % 4][j] = multiply_add(left, right[j], sums[i / 4][i % 4][j]);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int index = 4 * (square + i * groups);
      if (index < count && filter < bands.filters) {
        result.store(before + index, filter, sums[i], before + count, bands.filters);
      }
    }
  }
}

// Whether it was done so; else the product has to do it.
template <class T, class Result>
bool forward_directly(const T* x, const T* weight, const Conv2d& s, const MaxPool2d& p,
                      const Result& result) {
  const Bands<T> bands(x, s, p, s.window.rows * s.window.columns * s.in * group_filters);
  if (!bands.fit) return false;
  launch(direct_forward<T, Result>, dim3(static_cast<unsigned>(bands.count() * bands.groups)),
         dim3(direct_threads), 0, bands, weight, result);
  return true;
}

}  // namespace chainrule::cuda
