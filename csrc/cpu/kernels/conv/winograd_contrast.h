// The contrast of an image, which decides whether Winograd's algorithm is accurate enough for it.
// The rounding errors of a tile are relative to its largest pixel, also in outputs whose window
// does not contain that pixel.
//
// Channels c mod 16 form 16 groups. The level of an image is the mean over its pixels, without the
// largest, of the largest |x| of a group, for the group where this is highest. An image is even if
// no |x| is above max_contrast times the level. Images of digits stay below 20, and activations of
// which one in ten is not zero below 81. One pixel in front of a ground of smaller numbers is above
// the bound from a factor of about 100, whether one of its channels is large or all are.
//
// Groups do not depend on the vector width, and their sums have a fixed order. The decision is
// therefore the same with every instruction set.
#pragma once

#include <limits>

#include "cpu/kernels/gemm/packing.h"

namespace chainrule::CR_ISA {

constexpr int max_contrast = 96;
// The largest weight of a filter, relative to the mean of its |weight|.
constexpr int max_filter_contrast = 64;
// If the largest product of an image is smaller, underflow in the transforms may exceed the
// rounding.
constexpr double smallest_product = 0x1p-80;

// The sum and the maximum of |x| over the pixels of a part of an image, for each group of channels.
template <class T>
struct GroupLevels {
  using V = Vec<T>;
  static constexpr int groups = 16;
  T sums[groups], maxima[groups];

  void clear() {
    for (int i = 0; i < groups; ++i) sums[i] = maxima[i] = T(0);
  }

  void add(const GroupLevels& other) {
    for (int i = 0; i < groups; ++i) {
      sums[i] += other.sums[i];
      if (!(other.maxima[i] <= maxima[i])) maxima[i] = other.maxima[i];
    }
  }

  // Adds a rectangle of pixels. `columns` is even.
  CR_INLINE void add_pixels(const T* corner, int64_t row_stride, int64_t channels, int64_t rows,
                            int64_t columns) {
    for (int group = 0; group < groups; group += V::width) {
      V sum = V::load(sums + group), largest = V::load(maxima + group);
      for (int64_t i = 0; i < rows; ++i) {
        const T* const row = corner + i * row_stride + group;
        int64_t j = 0;
        for (; j + 4 <= columns; j += 4)
          add_row<4>(row + j * channels, channels, channels - group, sum, largest);
        if (j < columns) add_row<2>(row + j * channels, channels, channels - group, sum, largest);
      }
      sum.store(sums + group);
      largest.store(maxima + group);
    }
  }

  T largest() const {
    T result = T(0);
    for (const T value : maxima) {
      if (!(value <= result)) result = value;
    }
    return result;
  }

  // Returns true if an image of `pixels` pixels with these levels is even. False for NaN.
  bool even(int64_t pixels) const {
    T level = T(0);
    for (int i = 0; i < groups; ++i) {
      const T others = sums[i] - maxima[i];
      if (others > level) level = others;
    }
    const T top = largest();
    return top == T(0) || top <= max_contrast * (level / static_cast<T>(max(1, pixels - 1)));
  }

 private:
  // `count` pixels of a row, of which `left` channels from `row` on exist.
  template <int count>
  static CR_INLINE void add_row(const T* row, int64_t channels, int64_t left, V& sum, V& largest) {
    V m[count];
#pragma GCC unroll 4
    for (V& v : m) v = V::zero();
    int64_t c = 0;
    for (; c + V::width <= left; c += groups) {
#pragma GCC unroll 4
      for (int j = 0; j < count; ++j) m[j] = max(m[j], abs(V::load(row + j * channels + c)));
    }
    if (c < left) {
#pragma GCC unroll 4
      for (int j = 0; j < count; ++j)
        m[j] = max(m[j], abs(V::load(row + j * channels + c, left - c, T(0))));
    }
    if constexpr (count == 4) {
      sum = sum + ((m[0] + m[1]) + (m[2] + m[3]));
      largest = max(largest, max(max(m[0], m[1]), max(m[2], m[3])));
    } else {
      sum = sum + (m[0] + m[1]);
      largest = max(largest, max(m[0], m[1]));
    }
  }
};

// Returns the least maximum of |weight| of the filters of a packed panel that are not zero, or -1
// if the maximum of a filter is too far above its mean, or above 2^100.
template <class T>
T filter_level(const PackedMatrix<T>& filters, const T* packed, int64_t panel) {
  using V = Vec<T>;
  const int64_t step = filters.panel_stride(panel);
  T level = std::numeric_limits<T>::max();
  for (int64_t k = 0; k < step; k += V::width) {
    const T* from = packed + filters.panel_offset(panel) + k;
    V sum = V::zero(), largest = V::zero();
    for (int64_t row = 0; row < filters.depth; ++row, from += step) {
      const V weight = abs(V::load(from));
      sum = sum + weight;
      largest = max(largest, weight);
    }
    T sums[V::width], maxima[V::width];
    sum.store(sums);
    largest.store(maxima);
    for (int i = 0; i < V::width; ++i) {
      const T bound = max_filter_contrast * (sums[i] / static_cast<T>(filters.depth));
      if (!(maxima[i] <= bound) || maxima[i] > T(0x1p100)) return T(-1);
      if (maxima[i] > T(0) && maxima[i] < level) level = maxima[i];
    }
  }
  return level;
}

}  // namespace chainrule::CR_ISA
