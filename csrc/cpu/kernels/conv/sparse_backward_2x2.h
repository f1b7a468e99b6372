// The pooled backward pass to the input for 2 x 2 pooling windows. It adds the gradients of the
// four positions of a window in one pass. The loop of sparse_backward.h takes one position at a
// time.
//
// The pixels under the filters at the four positions overlap except for a row and a column. They
// are (rows + 1) rows of (columns + 1) * channels elements. In small layers they fit the registers.
// With AVX-512 they are 6 x 3 vectors for LeNet's second layer (5 x 5 x 6), and 4 x 6 vectors for
// 3 x 3 x 24. They are then loaded and stored once per window, not four times. A filter row is
// surrounded by zeros. For the second column of the window it is read `channels` elements earlier.
//
// Those zeros are multiplied by every gradient of the window, so all gradients must be finite.
//
// LeNet's second layer takes 202 us, and 227 us with one position at a time. 3 x 3 x 24 with 32
// filters takes 190 us and 258 us (per step, two threads). With AVX2 (Zen 3) 3 x 3 x 6 with 16
// filters takes 190 us and 590 us. No number of filters up to 2048 was found for which it is
// slower.
#pragma once

#include "cpu/kernels/conv/sparse_backward.h"

namespace chainrule::CR_ISA {

template <class T>
struct Window2x2 {
  T* pixels;  // the first pixel under the filters
  int64_t pixel_row_stride;
  const T* filters;  // the first row of the first filter, after its zeros
  int64_t filter_stride, filter_row_stride, channels;
  const uint64_t* mask;  // of the filters with a gradient, mask_words per position
  int64_t mask_words;
  const T* g;
};

template <int rows, int vectors, class T>
void axpy_window(const Window2x2<T>& window) {
  using V = Vec<T>;
  V total[rows + 1][vectors];
#pragma GCC unroll 8
  for (int r = 0; r <= rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      total[r][j] = V::load(window.pixels + r * window.pixel_row_stride + j * V::width);
    }
  }
  const uint64_t* mask = window.mask;
#pragma GCC unroll 2
  for (int down = 0; down < 2; ++down) {
    // Tried without success: one loop for both columns, with 32 filters of each in a word (5 %
    // slower).
    for (int across = 0; across < 2; ++across, mask += window.mask_words) {
      const T* const filters = window.filters - across * window.channels;
      for (int64_t word = 0; word < window.mask_words; ++word) {
        for (uint64_t bits = mask[word]; bits != 0; bits &= bits - 1) {
          const int64_t k = 64 * word + __builtin_ctzll(bits);
          const V value = V::set(window.g[k]);
          const T* from = filters + k * window.filter_stride;
#pragma GCC unroll 8
          for (int r = 0; r < rows; ++r, from += window.filter_row_stride) {
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) {
              total[down + r][j] = fma(value, V::load(from + j * V::width), total[down + r][j]);
            }
          }
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r <= rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      total[r][j].store(window.pixels + r * window.pixel_row_stride + j * V::width);
    }
  }
}

template <class T>
using AxpyWindowFunction = void (*)(const Window2x2<T>&);

template <class T, int rows, int vectors>
AxpyWindowFunction<T> window_instance(int64_t requested) {
  if constexpr ((rows + 1) * vectors > max_accumulators) {
    return nullptr;
  } else {
    if (vectors == requested) return axpy_window<rows, vectors, T>;
    return window_instance<T, rows, vectors + 1>(requested);
  }
}

// Returns the number of vectors in a row of the pixels under the filters at the four positions.
template <class T>
int64_t window_row_vectors(const Conv2d& s) {
  return ceil_div((s.window.columns + 1) * s.in, Vec<T>::width);
}

// Returns the instance for this layer, or null if its windows do not fit the registers. There are
// no instances for filters whose height is not 3 or 5, because they are rare and would need space.
template <class T>
AxpyWindowFunction<T> window_instance(const Conv2d& s, const MaxPool2d& p) {
  const bool is_2x2 = p.window.rows == 2 && p.window.columns == 2;
  if (!is_2x2 || s.window.stride_rows != 1 || s.window.stride_columns != 1) return nullptr;
  const int64_t vectors = window_row_vectors<T>(s);
  if (CR_VECTOR_BYTES == 0 || vectors == 0) return nullptr;
  if (s.window.rows == 3) return window_instance<T, 3, 1>(vectors);
  if (s.window.rows == 5) return window_instance<T, 5, 1>(vectors);
  return nullptr;
}

}  // namespace chainrule::CR_ISA
