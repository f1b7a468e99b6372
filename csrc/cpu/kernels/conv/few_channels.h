// A correlation of images of few channels with few filters, as LeNet's first layer (1 and 6): too
// few for a register whose lanes are filters. Here the lanes are the numbers of a row of the output
// as it lies, filter after filter, pixel after pixel: three registers hold 8 pixels of 6 filters
// (float32, AVX-512), and the filters' weights for one tap repeat in them. One permutation spreads
// the pixels of a row of the image over such a register:
//
//   y[i, 6 j + k] += x[i + r, j + s] · weight[k, r, s]
//
// and each spread register serves all rows of the output in the block. For a result that is pooled,
// even and odd columns are kept apart, so that the four values of a 2 x 2 window meet in the same
// lane of four registers.
//
//   registers   rows x columns x 3 sums (4 x 2 x 3), a spread one for each column, a weight, 3
//               orders of permutation: 30 of 32; half the rows where there are 16
//
// LeNet's first layer with its pooling: 320 us, against 680 with filters as lanes. Tried and
// lost: writing the spread rows to memory, once for all columns of the window (loads across cache
// lines) or once for each (more stores than they save): 485.
#pragma once

#include "cpu/kernels/conv/implicit_gemm.h"

namespace chainrule::CR_ISA {

template <class T, int rows, int columns>
class FewFilters {
 public:
  using V = Vec<T>;
  static constexpr int vectors = 3, lanes = vectors * V::width;
  using Sums = V[rows][columns][vectors];

  explicit FewFilters(const Correlation<T>& c)
      : c_(c), channels_(c.image.channels), filters_(c.filters.columns) {
    if (!serve()) return;
    taps_ = c.window_rows * c.window_columns * channels_;
    lines_ = round_up(c.out_rows, rows) + c.window_rows - 1;
    row_ = c.columns_seen() * channels_;
    block_ = lanes / filters_ * columns * channels_;
    const int64_t blocks = ceil_div(ceil_div(c.out_columns, columns) * filters_, lanes);
    copy_size_ = round_up(lines_ * row_ + blocks * block_ + V::width, 16);
    for (int v = 0; v < vectors; ++v) {
      typename Integer<T>::type lane[V::width];
      const int64_t first = v * V::width / filters_;
      for (int64_t i = 0; i < V::width; ++i) {
        const int64_t pixel = (v * V::width + i) / filters_ - first;
        lane[i] = static_cast<typename Integer<T>::type>(pixel * columns * channels_);
      }
      __builtin_memcpy(&order_[v], lane, sizeof order_[v]);
      first_[v] = first * columns * channels_;
    }
  }

  // Filters that fill three registers a whole number of times, and pixels that one permutation of
  // one register spreads. A window without taps (a phase of backward input, where the stride is
  // longer than the filter) has no weights to begin with.
  bool serve() const {
    if (c_.window_rows < 1 || c_.window_columns < 1) return false;
    if (V::width == 1 || filters_ < 1 || 4 * filters_ > 3 * V::width || lanes % filters_ != 0) {
      return false;
    }
    const int64_t most = (V::width - 2) / filters_ + 2;  // pixels a register has a part in
    // With every other pixel for all, so that pooled and not, the sums are the same.
    return (2 * most - 1) * channels_ <= V::width && channels_ >= 1 && c_.step_rows == 1 &&
           c_.step_columns == 1 && c_.target_column == filters_;
  }

  // Elements of: the weights as they repeat, and the bias; what one worker needs for itself.
  int64_t weights_size() const { return (taps_ + 1) * lanes; }
  int64_t own_size() const { return copy_size_; }

  // From filters packed for Correlation.
  void repeat(const T* packed, T* weights) const {
    const int64_t step = c_.filters.sliver_step(0);
    for (int64_t tap = 0; tap < taps_; ++tap) {
      for (int64_t i = 0; i < lanes; ++i) {
        weights[tap * lanes + i] = packed[tap * step + i % filters_];
      }
    }
    for (int64_t i = 0; i < lanes; ++i) {
      weights[taps_ * lanes + i] = c_.bias ? c_.bias[i % filters_] : T(0);
    }
  }

  // One image. finish(i, first, sums) takes rows [i * rows, (i + 1) * rows) of the output, of each
  // the numbers from `first` on: of the row, or of every column-th pixel of it.
  template <class Finish>
  void run(const T* source, const T* weights, T* copy, int64_t width, Finish finish) const {
    copy_rectangle(source, c_.image, c_.top, c_.left, lines_, c_.columns_seen(), copy);
    for (int64_t i = lines_ * row_; i < copy_size_; ++i) copy[i] = T(0);
    for (int64_t i = 0; i * rows < c_.out_rows; ++i) {
      const T* from = copy + i * rows * row_;
      for (int64_t first = 0; first < width * filters_; first += lanes, from += block_) {
        Sums sums;
        multiply(from, weights, sums);
        finish(i, first, sums);
      }
    }
  }

 private:
  // One row of the image, to rows [first, last] of the output; their numbers are known to the
  // compiler, or the sums would not stay in registers without a test before each.
  template <int first, int last>
  CR_INLINE void add(const T* from, const T* weight, int64_t weight_row, Sums& total) const {
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      V x[columns];
#pragma GCC unroll 2
      for (int j = 0; j < columns; ++j) {
        x[j] = permute(V::load(from + first_[v] + j * channels_), order_[v]);
      }
#pragma GCC unroll 8
      for (int i = first; i <= last; ++i) {
        const V w = in_register(V::load(weight - i * weight_row + v * V::width));
#pragma GCC unroll 2
        for (int j = 0; j < columns; ++j) total[i][j][v] = fma(x[j], w, total[i][j][v]);
      }
    }
  }
  template <int first, int last>
  CR_INLINE void add_between(int64_t wanted_first, int64_t wanted_last, const T* from,
                             const T* weight, int64_t weight_row, Sums& total) const {
    if constexpr (first < rows - 1) {
      if (wanted_first > first) {
        return add_between<first + 1, rows - 1>(wanted_first, wanted_last, from, weight, weight_row,
                                                total);
      }
    }
    if constexpr (last > first) {
      if (wanted_last < last) {
        return add_between<first, last - 1>(wanted_first, wanted_last, from, weight, weight_row,
                                            total);
      }
    }
    add<first, last>(from, weight, weight_row, total);
  }

  void multiply(const T* corner, const T* weights, Sums& sums) const {
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
    const int64_t taps_row = c_.window_columns * channels_;
    for (int64_t tap = 0; tap < taps_row; ++tap) {  // a column of the window, and a channel
      const T* from = corner + tap;
      for (int64_t q = 0; q < rows + c_.window_rows - 1; ++q, from += row_) {
        // Rows of the output whose window row q lies in: [q - window_rows + 1, q].
        const T* const weight = weights + (q * taps_row + tap) * lanes;
        const int64_t first = larger(0, q - c_.window_rows + 1), last = smaller(rows - 1, q);
        add_between<0, rows - 1>(first, last, from, weight, taps_row * lanes, total);
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

  const Correlation<T>& c_;
  int64_t channels_, filters_, taps_ = 0;
  // Rows of the image that windows see, with those that a last group of rows only seems to.
  int64_t lines_ = 0;
  int64_t row_ = 0, block_ = 0;  // elements from row to row of the copy, and from block to block
  int64_t copy_size_ = 0;        // with what registers read behind the last pixel
  typename V::Bits order_[vectors];  // which pixel each lane shows, counted from first_
  int64_t first_[vectors];
};

}  // namespace chainrule::CR_ISA
