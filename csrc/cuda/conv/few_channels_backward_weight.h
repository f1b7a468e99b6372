// Weight gradient of a convolution with few input channels. A block accumulates over many bands. A
// thread has four filters, nine window elements and every pixel_lanes-th pixel.
#pragma once

#include "cuda/conv/few_channels.h"

namespace chainrule::cuda {

constexpr int elements_per_thread = 9, sums_per_thread = 4 * elements_per_thread;

template <class T>
struct FewChannelsBackwardWeight {
  RowBands<T> bands;
  int blocks = 0;          // per group of filters
  int element_lanes = 0;   // threads that share the window elements
  int pixel_lanes = 0;     // threads that share the pixels
  int bands_per_part = 0;  // that a thread adds in order; then the sums are added in memory

  FewChannelsBackwardWeight(const T* x, const Conv2d& s, const MaxPool2d& p) : bands(x, s, p, 0) {
    if (!bands.supported) return;
    blocks = static_cast<int>(min(bands.count(), ceil_div(max_blocks, bands.filter_groups)));
    element_lanes = static_cast<int>(ceil_div(bands.window_elements, elements_per_thread));
    pixel_lanes = few_channels_threads / (bands.filter_lanes * element_lanes);
    const int64_t terms = ceil_div(int64_t{bands.band_rows} * bands.out_columns, pixel_lanes);
    if (terms > 2 * max_terms) bands.supported = false;
    bands_per_part = static_cast<int>(max(1, max_terms / terms));
    blocks = static_cast<int>(max(blocks, ceil_div(bands.count(), bands_per_part * max_terms)));
  }
  int64_t workspace_bytes() const {
    return blocks * bands.filters * bands.window_elements * static_cast<int64_t>(sizeof(T));
  }

 private:
  static constexpr int64_t max_blocks = 264, max_terms = 1024;
};

// If `pooled`, dy is the pooled gradient and argmax gives the pixel of each window that it belongs
// to. A zero gradient is skipped, and so is an argmax out of range.
template <class T, bool pooled>
__global__ void __launch_bounds__(few_channels_threads, sizeof(T) == 4 && !pooled ? 3 : 2)
    few_channels_backward_weight_kernel(FewChannelsBackwardWeight<T> config, const T* dy,
                                        const uint16_t* argmax, T* partials) {
  __shared__ T memory[few_channels_shared_bytes / sizeof(T)];
  const RowBands<T>& bands = config.bands;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % bands.filter_lanes;
  const int element_lane = thread / bands.filter_lanes % config.element_lanes,
            pixel_lane = thread / (bands.filter_lanes * config.element_lanes);
  const int64_t group = blockIdx.x / config.blocks, block = blockIdx.x - group * config.blocks;
  const int64_t filter = group * filters_per_block + 4 * lane;
  int element_offsets[elements_per_thread];
#pragma unroll
  for (int e = 0; e < elements_per_thread; ++e) {
    const int k = element_lane * elements_per_thread + e;
    element_offsets[e] = bands.element_offset(k < bands.window_elements ? k : 0);
  }
  const int64_t band_count = bands.images * bands.bands_per_image,
                begin = block * band_count / config.blocks,
                end = (block + 1) * band_count / config.blocks;
  for (int64_t part = begin; part < end; part += config.bands_per_part) {
    T sums[4][elements_per_thread] = {};
    const int64_t part_end =
        part + config.bands_per_part < end ? part + config.bands_per_part : end;
    for (int64_t band_index = part; band_index < part_end; ++band_index) {
      const int64_t image = band_index / bands.bands_per_image;
      const int band = static_cast<int>(band_index - image * bands.bands_per_image);
      __syncthreads();
      bands.load_pixels(image, band, memory);
      __syncthreads();
      if (pixel_lane >= config.pixel_lanes) continue;
      const int count = bands.window_count(band);
      const int64_t before = bands.windows_before(image, band);
      for (int index = pixel_lane; index < count; index += config.pixel_lanes) {
        const int64_t at = (before + index) * bands.filters + filter;
        const T* const corner = memory + bands.window_offset(index);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const T gradient = filter + j < bands.filters ? dy[at + j] : T(0);
          const T* pixel = corner;
          if constexpr (pooled) {
            if (gradient == T(0)) continue;
            const int position = argmax[at + j];
            if (position >= bands.pool_rows * bands.pool_columns) continue;
            pixel += bands.pool_offset(position);
          }
#pragma unroll
          for (int e = 0; e < elements_per_thread; ++e) {
            sums[j][e] = multiply_add(gradient, pixel[element_offsets[e]], sums[j][e]);
          }
        }
      }
    }
    // Reduces the threads' sums of the same filters and elements, in order. Half of the sums at a
    // time fit in shared memory.
    constexpr int half = sums_per_thread / 2;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      __syncthreads();
#pragma unroll
      for (int i = 0; i < half; ++i) {
        const int sum = h * half + i;
        memory[i * few_channels_threads + thread] =
            sums[sum / elements_per_thread][sum % elements_per_thread];
      }
      __syncthreads();
      const int lane_count = bands.filter_lanes * config.element_lanes;
      for (int i = thread; i < half * lane_count; i += few_channels_threads) {
        const int sum = h * half + i / lane_count, at = i % lane_count;
        T total = T(0);
        for (int p = 0; p < config.pixel_lanes; ++p) {
          total += memory[i / lane_count * few_channels_threads + p * lane_count + at];
        }
        const int64_t k = at / bands.filter_lanes * elements_per_thread + sum % elements_per_thread;
        const int64_t f =
            group * filters_per_block + at % bands.filter_lanes * 4 + sum / elements_per_thread;
        if (k < bands.window_elements && f < bands.filters) {
          T& partial = partials[(block * bands.filters + f) * bands.window_elements + k];
          partial = part == begin ? total : partial + total;  // of this thread in every part
        }
      }
    }
  }
}

// Launches the kernels and returns true if the shape is supported. Otherwise the caller uses the
// GEMM.
template <bool pooled, class T>
bool try_few_channels_backward_weight(const T* dy, const uint16_t* argmax, const T* x, T* dweight,
                                      const Conv2d& s, const MaxPool2d& p, T* partials) {
  const FewChannelsBackwardWeight<T> config(x, s, p);
  if (!config.bands.supported) return false;
  launch(few_channels_backward_weight_kernel<T, pooled>,
         dim3(static_cast<unsigned>(config.blocks * config.bands.filter_groups)),
         dim3(few_channels_threads), 0, config, dy, argmax, partials);
  const TilePartition partition{.m = s.out,
                                .n = config.bands.window_elements,
                                .splits = config.blocks,
                                .partial_pitch = config.bands.window_elements};
  reduce_splits(static_cast<const T*>(partials),
                MatrixOutput<T>(dweight, config.bands.window_elements), partition);
  return true;
}

}  // namespace chainrule::cuda
