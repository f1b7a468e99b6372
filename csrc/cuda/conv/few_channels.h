// Convolution with few input channels, such as the first layer's one or three, without GEMM. A GEMM
// would waste most of its tile on missing columns and depth. A block copies the input rows of a
// band of output rows to shared memory, with their zero padding. So the inner loops need no bounds
// checks.
#pragma once

#include "cuda/conv/window_loader.h"
#include "cuda/gemm/epilogue.h"
#include "cuda/gemm/gemm_launch.h"

namespace chainrule::cuda {

constexpr int few_channels_threads = 256, few_channels_shared_bytes = 40 << 10;
constexpr int filters_per_block = 32;
constexpr int64_t max_channels = 4, max_window_elements = 128;

// Partition of the output into bands of rows of pooling windows (single pixels without pooling),
// and the input rows that each band reads. A band fits in shared memory.
template <class T>
struct RowBands {
  bool supported = false;
  SlidingWindow<T> window;
  int window_elements = 0;                 // per sliding window
  int pool_rows = 1, pool_columns = 1;     // pixels per pooling window
  int out_columns = 0, out_rows = 0;       // pooling windows per image
  int band_rows = 0, bands_per_image = 0;  // rows of pooling windows per band; bands per image
  int input_rows = 0, input_row_size = 0;  // per band; elements per input row
  int64_t images = 0;
  FastDivisor by_out_columns, by_pool_area, by_pool_columns, by_input_row_size, by_channels;
  int filter_lanes = 1;  // threads side by side, four filters each
  int64_t filters = 0, filter_groups = 0;

  // `p` gives the pooling windows, 1 x 1 without pooling. `reserved` elements of the shared memory
  // are used for other data. `supported` stays false if the shape does not fit.
  RowBands(const T* x, const Conv2d& s, const MaxPool2d& p, int64_t reserved)
      : window(make_sliding_window(
            x, s, {s.batch, p.out_height, p.out_width, p.window.rows, p.window.columns})) {
    const int64_t capacity = few_channels_shared_bytes / static_cast<int64_t>(sizeof(T)) - reserved;
    const int64_t size = window.elements;
    if (s.in > max_channels || size > max_window_elements || window.indexer.count() == 0 ||
        size == 0 || s.out == 0) {
      return;
    }
    if (max(s.window.stride_rows, s.window.stride_columns) > few_channels_shared_bytes) return;
    const int64_t row =
        ((p.out_width * p.window.columns - 1) * s.window.stride_columns + s.window.columns) * s.in;
    const auto rows_read = [&](int64_t of) {
      return (of * p.window.rows - 1) * s.window.stride_rows + s.window.rows;
    };
    if (row > capacity || rows_read(1) * row > capacity) return;
    int64_t rows_per_band = ceil_div(band_pixels, p.window.rows * p.out_width * p.window.columns);
    while (rows_per_band > 1 && rows_read(rows_per_band) * row > capacity) --rows_per_band;
    rows_per_band = ceil_div(p.out_height, ceil_div(p.out_height, rows_per_band));
    filter_groups = ceil_div(s.out, filters_per_block);
    if (s.batch * ceil_div(p.out_height, rows_per_band) >= INT32_MAX / filter_groups)
      return;  // grid size
    supported = true;
    window_elements = static_cast<int>(size);
    pool_rows = static_cast<int>(p.window.rows);
    pool_columns = static_cast<int>(p.window.columns);
    out_columns = static_cast<int>(p.out_width);
    out_rows = static_cast<int>(p.out_height);
    band_rows = static_cast<int>(rows_per_band);
    bands_per_image = static_cast<int>(ceil_div(p.out_height, rows_per_band));
    input_rows = static_cast<int>(rows_read(rows_per_band));
    input_row_size = static_cast<int>(row);
    images = s.batch;
    by_out_columns = FastDivisor(out_columns);
    by_pool_area = FastDivisor(pool_rows * pool_columns);
    by_pool_columns = FastDivisor(pool_columns);
    by_input_row_size = FastDivisor(input_row_size);
    by_channels = FastDivisor(s.in);
    filters = s.out;
    while (4 * filter_lanes < min(s.out, filters_per_block)) filter_lanes *= 2;
  }

  int64_t count() const { return images * bands_per_image; }

  __device__ int window_count(int band) const {
    return (out_rows - band * band_rows < band_rows ? out_rows - band * band_rows : band_rows) *
           out_columns;
  }
  // Number of windows of the batch before this band.
  __device__ int64_t windows_before(int64_t image, int band) const {
    return (image * out_rows + band * band_rows) * out_columns;
  }

  __device__ void load_pixels(int64_t image, int band, T* pixels) const {
    const int64_t top = window.top + int64_t{band} * band_rows * pool_rows * window.step_rows;
    const T* const from = window.data + image * window.height * window.width * window.channels;
    const int channels = static_cast<int>(window.channels);
    for (int i = static_cast<int>(threadIdx.x); i < input_rows * input_row_size;
         i += few_channels_threads) {
      const int r = by_input_row_size.divide31(i), in_row = i - r * input_row_size;
      const int c = by_channels.divide31(in_row);
      const int64_t row = top + r, column = window.left + c;
      const bool inside = row >= 0 && row < window.height && column >= 0 && column < window.width;
      const int64_t at = (row * window.width + column) * channels + in_row - c * channels;
      pixels[i] = inside ? from[at] : T(0);
    }
  }

  __device__ __forceinline__ int pixel_offset(int rows, int columns) const {
    return rows * static_cast<int>(window.step_rows) * input_row_size +
           columns * static_cast<int>(window.step_columns * window.channels);
  }
  // Offset of the sliding window's corner, for a pooling window's first pixel.
  __device__ __forceinline__ int window_offset(int index) const {
    const int row = by_out_columns.divide31(index);
    return pixel_offset(row * pool_rows, (index - row * out_columns) * pool_columns);
  }
  // Further offset for a pixel of the pooling window.
  __device__ __forceinline__ int pool_offset(int position) const {
    const int row = by_pool_columns.divide31(position);
    return pixel_offset(row, position - row * pool_columns);
  }
  // Offset of window element k from the sliding window's corner.
  __device__ __forceinline__ int element_offset(int k) const {
    const int in_row = static_cast<int>(window.by_columns.divisor() * window.channels);
    return k / in_row * input_row_size + k % in_row;
  }

 private:
  static constexpr int64_t band_pixels = 256;
};

// Returns 1 x 1 windows: one per output pixel, no pooling.
inline MaxPool2d unit_windows(const Conv2d& s) {
  return {s.batch, s.out_height, s.out_width, s.out, {1, 1, 1, 1}, s.out_height, s.out_width};
}

// Each thread has two fragments of four consecutive pixels and four filters.
template <class T, class Output>
__global__ void __launch_bounds__(few_channels_threads, sizeof(T) == 4 ? 2 : 1)
    few_channels_kernel(RowBands<T> bands, const T* weight, Output output) {
  alignas(16) __shared__ T memory[few_channels_shared_bytes / sizeof(T)];
  const int thread = static_cast<int>(threadIdx.x), columns = 4 * bands.filter_lanes;
  const int64_t band_index = blockIdx.x / bands.filter_groups;
  const int64_t first_filter = (blockIdx.x - band_index * bands.filter_groups) * filters_per_block;
  const int64_t image = band_index / bands.bands_per_image;
  const int band = static_cast<int>(band_index - image * bands.bands_per_image);
  T *const weights = memory, *const pixels = memory + bands.window_elements * columns;
  for (int i = thread; i < bands.window_elements * columns; i += few_channels_threads) {
    const int64_t filter = first_filter + i % columns;
    weights[i] =
        filter < bands.filters ? weight[filter * bands.window_elements + i / columns] : T(0);
  }
  bands.load_pixels(image, band, pixels);
  __syncthreads();
  const int area = bands.pool_rows * bands.pool_columns, count = bands.window_count(band) * area;
  const int64_t before = bands.windows_before(image, band) * area;
  const int pixel_lanes = few_channels_threads / bands.filter_lanes,
            lane = thread % bands.filter_lanes;
  const int in_row = static_cast<int>(bands.window.by_columns.divisor() * bands.window.channels);
  const int64_t filter = first_filter + 4 * lane;
  for (int pixel_group = thread / bands.filter_lanes; 4 * pixel_group < count;
       pixel_group += 2 * pixel_lanes) {
    T sums[2][4][4] = {};
    int corners[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int index = 4 * (pixel_group + i / 4 * pixel_lanes) + i % 4, last = count - 1;
      const int pixel = index < last ? index : last, pool = bands.by_pool_area.divide31(pixel);
      corners[i] = bands.window_offset(pool) + bands.pool_offset(pixel - pool * area);
    }
    const T* w = weights + 4 * lane;
    for (int base = 0, k = 0; k < bands.window_elements; base += bands.input_row_size) {
      for (int e = base; e < base + in_row; ++e, ++k, w += columns) {
        T right[4];
        load_vec4(w, right);
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
      const int index = 4 * (pixel_group + i * pixel_lanes);
      if (index < count && filter < bands.filters) {
        output.store(before + index, filter, sums[i], before + count, bands.filters);
      }
    }
  }
}

// Launches the kernel and returns true if the shape is supported. Otherwise the caller uses the
// GEMM.
template <class T, class Output>
bool try_few_channels(const T* x, const T* weight, const Conv2d& s, const MaxPool2d& p,
                      const Output& output) {
  const RowBands<T> bands(x, s, p, s.window.rows * s.window.columns * s.in * filters_per_block);
  if (!bands.supported) return false;
  launch(few_channels_kernel<T, Output>,
         dim3(static_cast<unsigned>(bands.count() * bands.filter_groups)),
         dim3(few_channels_threads), 0, bands, weight, output);
  return true;
}

}  // namespace chainrule::cuda
