// Direct convolution of images of few channels with few filters, as in LeNet's first layer (1 and
// 6). Six filters do not fill a vector whose lanes are filters. The lanes are therefore consecutive
// elements of an output row: all filters of a pixel, then the next pixel. Three vectors hold 8
// pixels of 6 filters (float32, AVX-512). The weights of a tap repeat in them. One permutation
// spreads the pixels of an image row over such a vector:
//
//   y[i, 6 j + k] += x[i + r, j + s] · weight[k, r, s]
//
// Each spread vector is used for all output rows of the block. If the result is pooled, even and
// odd columns are separate. The four values of a 2 x 2 window are then in the same lane of four
// vectors.
//
//   registers   rows x columns x 3 sums (4 x 2 x 3), a spread vector per column, a weight and 3
//               permutations: 30 of 32. With 16 registers there are half as many rows.
//
// LeNet's first layer with its pooling takes 320 us, and 680 us with filters as lanes. Tried
// without success: storing the spread rows, once for all columns of the window (loads cross cache
// lines) or once per column (more stores than it saves): 485 us.
#pragma once

#include "cpu/kernels/conv/implicit_gemm.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

template <class T, int rows, int columns>
class FewChannelConv {
 public:
  using V = Vec<T>;
  static constexpr int vectors = 3, lanes = vectors * V::width;
  using Sums = V[rows][columns][vectors];

  explicit FewChannelConv(const ImplicitGemm<T>& c)
      : c_(c), channels_(c.image.channels), filters_(c.filters.columns) {
    if (!supports()) return;
    taps_ = c.window_rows * c.window_columns * channels_;
    input_rows_ = round_up(c.out_rows, rows) + c.window_rows - 1;
    row_stride_ = c.input_columns() * channels_;
    block_stride_ = lanes / filters_ * columns * channels_;
    const int64_t blocks = ceil_div(ceil_div(c.out_columns, columns) * filters_, lanes);
    worker_scratch_size_ =
        round_up(input_rows_ * row_stride_ + blocks * block_stride_ + V::width, 16);
    for (int v = 0; v < vectors; ++v) {
      typename Integer<T>::type lane[V::width];
      const int64_t first = v * V::width / filters_;
      for (int64_t i = 0; i < V::width; ++i) {
        const int64_t pixel = (v * V::width + i) / filters_ - first;
        lane[i] = static_cast<typename Integer<T>::type>(pixel * columns * channels_);
      }
      __builtin_memcpy(&permutation_[v], lane, sizeof permutation_[v]);
      pixel_offset_[v] = first * columns * channels_;
    }
  }

  // Returns true if the filters fill three vectors a whole number of times, and one permutation of
  // one vector spreads the pixels. A window without taps is not supported. It occurs in a phase of
  // backward input if the stride is longer than the filter.
  bool supports() const {
    if (c_.window_rows < 1 || c_.window_columns < 1) return false;
    // All terms of a window are added in order.
    if (c_.window_rows * c_.window_columns * channels_ > max_part_terms) return false;
    if (V::width == 1 || filters_ < 1 || 4 * filters_ > 3 * V::width || lanes % filters_ != 0) {
      return false;
    }
    const int64_t pixels = (V::width - 2) / filters_ + 2;  // that a vector has a part of
    // The bound for every second pixel is used for all layers, so that pooled and unpooled sums
    // agree.
    return (2 * pixels - 1) * channels_ <= V::width && channels_ >= 1 && c_.stride_rows == 1 &&
           c_.stride_columns == 1 && c_.output_column_stride == filters_;
  }

  // Elements of the repeated weights and bias.
  int64_t weights_size() const { return (taps_ + 1) * lanes; }
  int64_t worker_scratch_size() const { return worker_scratch_size_; }

  // Repeats the weights of filters that are packed for ImplicitGemm.
  void pack_weights(const T* packed, T* weights) const {
    const int64_t step = c_.filters.panel_stride(0);
    for (int64_t tap = 0; tap < taps_; ++tap) {
      for (int64_t i = 0; i < lanes; ++i) {
        weights[tap * lanes + i] = packed[tap * step + i % filters_];
      }
    }
    for (int64_t i = 0; i < lanes; ++i) {
      weights[taps_ * lanes + i] = c_.bias ? c_.bias[i % filters_] : T(0);
    }
  }

  // Convolves one image. store(i, first, sums) receives rows [i * rows, (i + 1) * rows) of the
  // output, from element `first` of each row on. With two columns it is element `first` of every
  // second pixel.
  template <class Store>
  void run(const T* source, const T* weights, T* copy, int64_t width, Store store) const {
    copy_padded(source, c_.image, c_.top, c_.left, input_rows_, c_.input_columns(), copy);
    for (int64_t i = input_rows_ * row_stride_; i < worker_scratch_size_; ++i) copy[i] = T(0);
    for (int64_t i = 0; i * rows < c_.out_rows; ++i) {
      if (!keep_going(width * filters_ * taps_ / V::width)) return;
      const T* from = copy + i * rows * row_stride_;
      for (int64_t first = 0; first < width * filters_; first += lanes, from += block_stride_) {
        Sums sums;
        compute_block(from, weights, sums);
        store(i, first, sums);
      }
    }
  }

 private:
  // Adds one image row to rows [first, last] of the output. Both are template parameters. With
  // variables the sums would not stay in registers, or there would be a test before each.
  template <int first, int last>
  CR_INLINE void add_input_row(const T* from, const T* weight, int64_t weight_row,
                               Sums& total) const {
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      V x[columns];
#pragma GCC unroll 2
      for (int j = 0; j < columns; ++j) {
        x[j] = permute(V::load(from + pixel_offset_[v] + j * channels_), permutation_[v]);
      }
#pragma GCC unroll 8
      for (int i = first; i <= last; ++i) {
        const V w = keep_in_register(V::load(weight - i * weight_row + v * V::width));
#pragma GCC unroll 2
        for (int j = 0; j < columns; ++j) total[i][j][v] = fma(x[j], w, total[i][j][v]);
      }
    }
  }
  template <int first, int last>
  CR_INLINE void add_input_row_to(int64_t first_row, int64_t last_row, const T* from,
                                  const T* weight, int64_t weight_row, Sums& total) const {
    if constexpr (first < rows - 1) {
      if (first_row > first) {
        return add_input_row_to<first + 1, rows - 1>(first_row, last_row, from, weight, weight_row,
                                                     total);
      }
    }
    if constexpr (last > first) {
      if (last_row < last) {
        return add_input_row_to<first, last - 1>(first_row, last_row, from, weight, weight_row,
                                                 total);
      }
    }
    add_input_row<first, last>(from, weight, weight_row, total);
  }

  void compute_block(const T* corner, const T* weights, Sums& sums) const {
    Sums total;
    const T* const bias = weights + taps_ * lanes;
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < columns; ++j) {
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) total[i][j][v] = V::load(bias + v * V::width);
      }
    }
    const int64_t row_taps = c_.window_columns * channels_;
    for (int64_t tap = 0; tap < row_taps; ++tap) {  // a column of the window, and a channel
      const T* from = corner + tap;
      for (int64_t q = 0; q < rows + c_.window_rows - 1; ++q, from += row_stride_) {
        // Image row q is in the windows of output rows [q - window_rows + 1, q].
        const T* const weight = weights + (q * row_taps + tap) * lanes;
        const int64_t first = max(0, q - c_.window_rows + 1), last = min(rows - 1, q);
        add_input_row_to<0, rows - 1>(first, last, from, weight, row_taps * lanes, total);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < columns; ++j) {
#pragma GCC unroll 3
        for (int v = 0; v < vectors; ++v) {
          const V value = total[i][j][v];
          sums[i][j][v] = c_.relu ? select(value <= V::zero(), V::zero(), value) : value;
        }
      }
    }
  }

  const ImplicitGemm<T>& c_;
  int64_t channels_, filters_, taps_ = 0;
  // Image rows under the windows, including those of a last incomplete block of rows.
  int64_t input_rows_ = 0;
  int64_t row_stride_ = 0, block_stride_ = 0;  // of the copy, in elements
  int64_t worker_scratch_size_ = 0;            // includes what vectors read after the last pixel
  typename V::Bits permutation_[vectors];      // the pixel of each lane, relative to pixel_offset_
  int64_t pixel_offset_[vectors];
};

}  // namespace chainrule::CR_ISA
