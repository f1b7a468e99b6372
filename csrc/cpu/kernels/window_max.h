// The largest of the values that a window holds, eq. (63), channel by channel, and where it stood.
// The first maximum wins; the first NaN counts as a maximum that nothing exceeds.
#pragma once

#include "core/shape.h"
#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

// The positions of a register of maxima, as Largest stored them.
template <class T>
CR_INLINE typename Vec<T>::Bits load_codes(const uint16_t* argmax) {
#if CR_VECTOR_BYTES == 0
  return *argmax;
#else
  typedef uint16_t Narrow __attribute__((vector_size(Vec<T>::width * 2)));
  Narrow narrow;
  __builtin_memcpy(&narrow, argmax, sizeof narrow);
  return __builtin_convertvector(narrow, typename Vec<T>::Bits);
#endif
}

template <class T>
class Largest {
 public:
  using V = Vec<T>;
  using Codes = typename V::Bits;

  explicit CR_INLINE Largest(V first) : best_(first) {}

  // In row order; `code` is the position in the window.
  CR_INLINE void take(V v, typename Integer<T>::type code) {
    const auto keep = v <= best_;
    const auto settled = best_ == best_;
    const V candidate = select<T>(keep, best_, v);
    const Codes place = keep ? position_ : code - Codes{};
    best_ = select<T>(settled, candidate, best_);
    position_ = settled ? place : position_;
  }

  CR_INLINE void store(Whole, T* y, uint16_t* argmax) const {
    best_.store(y);
    copy_codes(V::width, argmax);
  }
  CR_INLINE void store(Part part, T* y, uint16_t* argmax) const {
    best_.store(y, part.lanes);
    copy_codes(part.lanes, argmax);
  }

 private:
  CR_INLINE void copy_codes(int64_t lanes, uint16_t* argmax) const {
#if CR_VECTOR_BYTES == 0
    if (lanes > 0) *argmax = static_cast<uint16_t>(position_);
#else
    typedef uint16_t Narrow __attribute__((vector_size(V::width * 2)));
    const Narrow narrow = __builtin_convertvector(position_, Narrow);
    if (lanes == V::width) {
      __builtin_memcpy(argmax, &narrow, sizeof narrow);
    } else {
      uint16_t codes[V::width];
      __builtin_memcpy(codes, &narrow, sizeof narrow);
      for (int64_t i = 0; i < lanes; ++i) argmax[i] = codes[i];
    }
#endif
  }

  V best_;
  Codes position_{};
};

// One row of pooled pixels, from the rows of pixels that its windows lie over.
template <class T>
void pool_row(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  const int64_t row = s.width * s.channels, pixel = s.channels;
  const int64_t rows = s.window.rows, columns = s.window.columns;
  for (int64_t i = 0; i < s.out_width; ++i, y += pixel, argmax += pixel) {
    const T* const corner = x + i * s.window.stride_columns * pixel;
    for_registers<T>(pixel, [=](int64_t c, auto lanes) {
      Largest<T> largest(lanes.load(corner + c));
      typename Integer<T>::type code = 0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t q = 0; q < columns; ++q, ++code) {
          largest.take(lanes.load(corner + r * row + q * pixel + c), code);
        }
      }
      largest.store(lanes, y + c, argmax + c);
    });
  }
}

}  // namespace chainrule::CR_ISA
