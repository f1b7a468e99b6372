// The gradient of filters over few channels. A block keeps its sums over many bands of pixels; a
// thread has four filters and nine of the window's elements, and every so manieth pixel.
#pragma once

#include "cuda/conv/few_channels.h"

namespace chainrule::cuda {

constexpr int own_elements = 9, own_sums = 4 * own_elements;

template <class T>
struct DirectWeight {
  Bands<T> bands;
  int blocks = 0;  // for each group of filters
  int parts = 0;   // threads that share the window's elements
  int pixels = 0;  // threads that share the pixels

  DirectWeight(const T* x, const Conv2d& s, const MaxPool2d& p) : bands(x, s, p, 0) {
    if (!bands.fit) return;
    blocks = static_cast<int>(smaller(bands.count(), ceil_div(most_blocks, bands.groups)));
    parts = static_cast<int>(ceil_div(bands.elements, own_elements));
    pixels = direct_threads / (bands.lanes * parts);
  }
  int64_t workspace() const {
    return blocks * bands.filters * bands.elements * static_cast<int64_t>(sizeof(T));
  }

 private:
  static constexpr int64_t most_blocks = 264;
};

// With `argmax`, dy is the pooled gradient, and of a window only the pixel of its maximum counts;
// not at all where the gradient is zero, or where the window has no such pixel.
template <class T, bool pooled>
__global__ void __launch_bounds__(direct_threads, sizeof(T) == 4 ? 3 : 2)
    direct_weight(DirectWeight<T> d, const T* dy, const uint16_t* argmax, T* partial) {
  __shared__ T memory[direct_memory / sizeof(T)];
  const Bands<T>& bands = d.bands;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % bands.lanes;
  const int part = thread / bands.lanes % d.parts, own = thread / (bands.lanes * d.parts);
  const int64_t group = blockIdx.x / d.blocks, block = blockIdx.x - group * d.blocks;
  const int64_t filter = group * group_filters + 4 * lane;
  int shift[own_elements];
#pragma unroll
  for (int e = 0; e < own_elements; ++e) {
    const int k = part * own_elements + e;
    shift[e] = bands.element(k < bands.elements ? k : 0);
  }
  T sums[4][own_elements] = {};
  const int64_t units = bands.images * bands.each, end = (block + 1) * units / d.blocks;
  for (int64_t unit = block * units / d.blocks; unit < end; ++unit) {
    const int64_t image = unit / bands.each;
    const int band = static_cast<int>(unit - image * bands.each);
    __syncthreads();
    bands.load(image, band, memory);
    __syncthreads();
    if (own >= d.pixels) continue;
    const int count = bands.windows(band);
    const int64_t before = bands.before(image, band);
    for (int index = own; index < count; index += d.pixels) {
      const int64_t at = (before + index) * bands.filters + filter;
      const T* const corner = memory + bands.corner(index);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const T gradient = filter + j < bands.filters ? dy[at + j] : T(0);
        const T* pixel = corner;
        if constexpr (pooled) {
          if (gradient == T(0)) continue;
          const int place = argmax[at + j];
          if (place >= bands.pool_rows * bands.pool_columns) continue;
          pixel += bands.place(place);
        }
#pragma unroll
        for (int e = 0; e < own_elements; ++e) {
          sums[j][e] = multiply_add(gradient, pixel[shift[e]], sums[j][e]);
        }
      }
    }
  }
  // The threads' sums for the same filters and elements, in order; a half at a time.
  constexpr int half = own_sums / 2;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const int sum = h * half + i;
      memory[i * direct_threads + thread] = sums[sum / own_elements][sum % own_elements];
    }
    __syncthreads();
    const int apart = bands.lanes * d.parts;
    for (int i = thread; i < half * apart; i += direct_threads) {
      const int sum = h * half + i / apart, at = i % apart;
      T total = T(0);
      for (int p = 0; p < d.pixels; ++p) {
        total += memory[i / apart * direct_threads + p * apart + at];
      }
      const int64_t k = at / bands.lanes * own_elements + sum % own_elements;
      const int64_t f = group * group_filters + at % bands.lanes * 4 + sum / own_elements;
      if (k < bands.elements && f < bands.filters) {
        partial[(block * bands.filters + f) * bands.elements + k] = total;
      }
    }
  }
}

// Whether it was done so.
template <bool pooled, class T>
bool weight_directly(const T* dy, const uint16_t* argmax, const T* x, T* dweight, const Conv2d& s,
                     const MaxPool2d& p, T* partial) {
  const DirectWeight<T> d(x, s, p);
  if (!d.bands.fit) return false;
  launch(direct_weight<T, pooled>, dim3(static_cast<unsigned>(d.blocks * d.bands.groups)),
         dim3(direct_threads), 0, d, dy, argmax, partial);
  const Cut cut{.m = s.out, .n = d.bands.elements, .splits = d.blocks, .pitch = d.bands.elements};
  add_parts(static_cast<const T*>(partial), MatrixResult<T>(dweight, d.bands.elements), cut);
  return true;
}

}  // namespace chainrule::cuda
