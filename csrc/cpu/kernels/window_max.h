// The maximum of a window, eq. (63), per channel, and its argmax. The first maximum wins. If a
// window holds NaN, the first NaN is the maximum.
#pragma once

#include "core/shape.h"
#include "cpu/kernels/loops.h"
#include "cpu/simd/uint16.h"

namespace chainrule::CR_ISA {

template <class T>
class RunningArgmax {
 public:
  using V = Vec<T>;
  using Argmax = typename V::Bits;

  explicit CR_INLINE RunningArgmax(V first) : max_(first) {}

  // `position` is the position of v in the window. Call it in row order.
  CR_INLINE void update(V v, typename Integer<T>::type position) {
    const auto keep = v <= max_;
    const auto not_nan = max_ == max_;
    const V candidate = select<T>(keep, max_, v);
    const Argmax argmax = keep ? argmax_ : position - Argmax{};
    max_ = select<T>(not_nan, candidate, max_);
    argmax_ = not_nan ? argmax : argmax_;
  }

  CR_INLINE void store(FullVector, T* y, uint16_t* argmax) const {
    max_.store(y);
    store_uint16<T>(argmax_, V::width, argmax);
  }
  CR_INLINE void store(PartialVector partial, T* y, uint16_t* argmax) const {
    max_.store(y, partial.lanes);
    store_uint16<T>(argmax_, partial.lanes, argmax);
  }

 private:
  V max_;
  Argmax argmax_{};
};

// One row of the pooled output. x points to the first row of pixels under its windows.
template <class T>
void max_pool_row(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  const int64_t row = s.width * s.channels, pixel = s.channels;
  const int64_t rows = s.window.rows, columns = s.window.columns;
  const int64_t window_cycles = rows * columns * (pixel / Vec<T>::width + 1);
  const int64_t windows_per_part = max(1, row_part / window_cycles);
  for (int64_t i = 0; i < s.out_width; ++i, y += pixel, argmax += pixel) {
    if (i % windows_per_part == windows_per_part - 1 && !keep_going(row_part)) return;
    const T* const corner = x + i * s.window.stride_columns * pixel;
    for_each_vector<T>(pixel, [=](int64_t c, auto lanes) {
      RunningArgmax<T> maximum(lanes.load(corner + c));
      typename Integer<T>::type position = 0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t q = 0; q < columns; ++q, ++position) {
          maximum.update(lanes.load(corner + r * row + q * pixel + c), position);
        }
      }
      maximum.store(lanes, y + c, argmax + c);
    });
  }
}

}  // namespace chainrule::CR_ISA
