// The gradients of one pooling window of 2 x 2, all at once, for the pooled backward pass to the
// input. Beside runs.h, which takes one place of the window after the other:
//
// The four places of a window see pixels that overlap but for a row and a column: (rows + 1) runs
// of (columns + 1) * channels numbers. They fit the registers of small layers, with AVX-512 6 x 3
// of them for LeNet's second (5 x 5 x 6), 4 x 6 for 3 x 3 x 24. So the pixels are loaded and stored
// once a window, not four times. A place's column is where the filter's row begins in its run: the
// row lies between zeros, and is read that much earlier.
//
// Those zeros meet every gradient of the window, so all have to be finite.
//
// LeNet's second layer takes 202 us so, and 227 place after place; 3 x 3 x 24 under 32 filters 190
// and 258 (a step's, on two threads). With AVX2 (Zen 3) 3 x 3 x 6 takes 190 us under 16 filters,
// and 590; no number of filters was found, up to 2048, at which it loses.
#pragma once

#include "cpu/kernels/conv/sparse_backward.h"

namespace chainrule::CR_ISA {

template <class T>
struct WindowOfGradients {
  T* pixels;  // from the window's corner, rows `pixel_row` apart
  int64_t pixel_row;
  const T* filters;  // the first filter's first row, behind its zeros
  int64_t filter, filter_row, channels;
  const uint64_t* words;  // the sets of the four places, word_count each
  int64_t word_count;
  const T* g;
};

template <int rows, int vectors, class T>
void add_window(const WindowOfGradients<T>& window) {
  using V = Vec<T>;
  V total[rows + 1][vectors];
#pragma GCC unroll 8
  for (int r = 0; r <= rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      total[r][j] = V::load(window.pixels + r * window.pixel_row + j * V::width);
    }
  }
  const uint64_t* words = window.words;
#pragma GCC unroll 2
  for (int down = 0; down < 2; ++down) {
    // Tried and lost: one loop for both columns, 32 filters of each in a word (5 %).
    for (int across = 0; across < 2; ++across, words += window.word_count) {
      const T* const filters = window.filters - across * window.channels;
      for (int64_t word = 0; word < window.word_count; ++word) {
        for (uint64_t bits = words[word]; bits != 0; bits &= bits - 1) {
          const int64_t k = 64 * word + __builtin_ctzll(bits);
          const V value = V::set(window.g[k]);
          const T* from = filters + k * window.filter;
#pragma GCC unroll 8
          for (int r = 0; r < rows; ++r, from += window.filter_row) {
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
      total[r][j].store(window.pixels + r * window.pixel_row + j * V::width);
    }
  }
}

template <class T>
using AddWindow = void (*)(const WindowOfGradients<T>&);

template <class T, int rows, int vectors>
AddWindow<T> window_instance(int64_t wanted) {
  if constexpr ((rows + 1) * vectors > most_accumulators) {
    return nullptr;
  } else {
    if (vectors == wanted) return add_window<rows, vectors, T>;
    return window_instance<T, rows, vectors + 1>(wanted);
  }
}

// Registers in a row of the pixels that a window's four places see.
template <class T>
int64_t window_vectors(const Conv2d& s) {
  return ceil_div((s.window.columns + 1) * s.in, Vec<T>::width);
}

// The instance for this layer; none where its windows do not fit, or for filters of other heights,
// which are rare and would cost space.
template <class T>
AddWindow<T> window_instance(const Conv2d& s, const MaxPool2d& p) {
  const bool pairs = p.window.rows == 2 && p.window.columns == 2;
  if (!pairs || s.window.stride_rows != 1 || s.window.stride_columns != 1) return nullptr;
  const int64_t vectors = window_vectors<T>(s);
  if (CR_VECTOR_BYTES == 0 || vectors == 0) return nullptr;
  if (s.window.rows == 3) return window_instance<T, 3, 1>(vectors);
  if (s.window.rows == 5) return window_instance<T, 5, 1>(vectors);
  return nullptr;
}

}  // namespace chainrule::CR_ISA
