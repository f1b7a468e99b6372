// The one hot loop of the library: a tile of c = a · b in registers.
//
//   rows x columns of the tile   tile_rows x (1..tile_vectors registers)
//   registers                    accumulators + one row of b + one broadcast of a; the
//                                static_assert below does the sum
//
// a is read where it lies, through one pointer a row and a step between the elements of a row: a
// matrix, its transpose, or the pixels under a sliding window are all the same to it, so nothing
// is unfolded (im2col) or packed first. b is packed into slivers as wide as a tile: within a
// sliver, row k is contiguous, padded with zeros to whole registers.
//
// The product runs over segments: `count` runs of `length` elements, a_stride and b_stride apart.
// A matrix product has one; a convolution has one for every row of its window, since the pixels of
// a window's row and their channels lie side by side.
#pragma once

#include "core/shape.h"
#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

constexpr int tile_rows = 6;
constexpr int tile_vectors = CR_REGISTERS == 32 ? 4 : 2;
static_assert(tile_rows * tile_vectors + tile_vectors + 1 <= CR_REGISTERS);

template <class T>
constexpr int tile_columns = tile_vectors * Vec<T>::width;

struct Segments {
  int64_t count, length;
  int64_t a_step, a_stride;
  int64_t b_step, b_stride;
};

// What becomes of a finished tile: where it goes, and what is added on the way.
template <class T>
struct Epilogue {
  const T* bias = nullptr;  // for the tile's columns
  bool accumulate = false;  // start from what is there
  bool relu = false;
};

// One row of a finished tile.
template <int vectors, class T>
CR_INLINE void finish_row(const Vec<T>* row, T* c, int64_t columns, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int width = V::width;
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) {
    const int64_t left = columns - j * width;
    T* const target = c + j * width;
    V value = row[j];
    if (left >= width) {
      if (epilogue.accumulate) value = value + V::load(target);
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width);
      if (epilogue.relu) value = select(value <= V::zero(), V::zero(), value);
      value.store(target);
    } else if (left > 0) {
      if (epilogue.accumulate) value = value + V::load(target, left, T(0));
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width, left, T(0));
      if (epilogue.relu) value = select(value <= V::zero(), V::zero(), value);
      value.store(target, left);
    }
  }
}

// c[i][0 .. columns) for i in [0, rows). Rows past `rows` repeat the last one and are not stored.
template <int vectors, class T>
void multiply_tile(const T* const* a, const T* b, T* const* c, int rows, int64_t columns,
                   const Segments& s, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int width = V::width;
  V accumulator[tile_rows][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < tile_rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      accumulator[i][j] = V::zero();
      // By the time it is written it has come: 4 % of a product of 1024 rows, 8 % of 4096 x 4096
      // sums over 128, together with fewer passes over c (product.h).
      __builtin_prefetch(c[i] + j * width, 1);
    }
  }
  for (int64_t segment = 0; segment < s.count; ++segment) {
    const T* row[tile_rows];
#pragma GCC unroll 8
    for (int i = 0; i < tile_rows; ++i) row[i] = a[i] + segment * s.a_stride;
    const T* b_row = b + segment * s.b_stride;
    int64_t offset = 0;
    for (int64_t k = 0; k < s.length; ++k) {
      V right[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) right[j] = V::load(b_row + j * width);
#pragma GCC unroll 8
      for (int i = 0; i < tile_rows; ++i) {
        const V left = V::set(row[i][offset]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j)
          accumulator[i][j] = fma(left, right[j], accumulator[i][j]);
      }
      offset += s.a_step;
      b_row += s.b_step;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < tile_rows; ++i) {
    if (i >= rows) break;
    finish_row<vectors>(accumulator[i], c[i], columns, epilogue);
  }
}

// As many registers as `columns` need: narrow matrices do not pay for a wide tile.
template <class T>
CR_INLINE void multiply_tile(const T* const* a, const T* b, T* const* c, int rows, int64_t columns,
                             const Segments& s, const Epilogue<T>& epilogue) {
  switch (ceil_div(columns, Vec<T>::width)) {
    case 1:
      return multiply_tile<1>(a, b, c, rows, columns, s, epilogue);
    case 2:
      return multiply_tile<2>(a, b, c, rows, columns, s, epilogue);
    case 3:
      if constexpr (tile_vectors > 2) {
        return multiply_tile<3>(a, b, c, rows, columns, s, epilogue);
      }
      [[fallthrough]];
    default:
      if constexpr (tile_vectors > 2) {
        return multiply_tile<4>(a, b, c, rows, columns, s, epilogue);
      }
  }
}

constexpr int strip_vectors = 2;
template <int vectors>
constexpr int strip_rows = CR_REGISTERS == 32 ? (vectors == 1 ? 14 : 12) : (vectors == 1 ? 10 : 5);

template <class T>
struct Strip {
  const T* a;
  int64_t a_row;    // from one row to the next of three
  int64_t a_three;  // from three to three
  const T* b;
  T* c;
  int64_t c_row;
  int64_t columns;
};

template <int rows, int vectors, class T>
void multiply_strip(const Strip<T>& strip, const Segments& s, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int pointers = (rows + 2) / 3;
  V accumulator[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) {
      accumulator[i][j] = V::zero();
      __builtin_prefetch(strip.c + i * strip.c_row + j * V::width, 1);  // as gemm.h does
    }
  }
  const int64_t a_row = strip.a_row;
  for (int64_t segment = 0; segment < s.count; ++segment) {
    const T* row[pointers];
#pragma GCC unroll 8
    for (int p = 0; p < pointers; ++p) {
      row[p] = strip.a + segment * s.a_stride + p * strip.a_three;
    }
    const T* b_row = strip.b + segment * s.b_stride;
    for (int64_t k = 0; k < s.length; ++k) {
      V right[vectors];
#pragma GCC unroll 2
      for (int j = 0; j < vectors; ++j) right[j] = V::load(b_row + j * V::width);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const V left = V::set(row[i / 3][i % 3 * a_row]);
#pragma GCC unroll 2
        for (int j = 0; j < vectors; ++j)
          accumulator[i][j] = fma(left, right[j], accumulator[i][j]);
      }
#pragma GCC unroll 8
      for (int p = 0; p < pointers; ++p) row[p] += s.a_step;
      b_row += s.b_step;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    finish_row<vectors>(accumulator[i], strip.c + i * strip.c_row, strip.columns, epilogue);
  }
}

template <class T>
using MultiplyStrip = void (*)(const Strip<T>&, const Segments&, const Epilogue<T>&);

// The instance for so many rows, at most strip_rows<vectors>.
template <class T, int vectors, int rows = strip_rows<vectors>>
MultiplyStrip<T> strip_instance(int64_t wanted) {
  if (rows == wanted) return multiply_strip<rows, vectors, T>;
  if constexpr (rows > 1) return strip_instance<T, vectors, rows - 1>(wanted);
  return nullptr;
}

// `length` rows, all the same distance apart, in strips as even as can be: 28 is 14 and 14, 26 is
// 13 and 13. Other threes only where the rows are few enough for one strip.
template <class T>
class Strips {
 public:
  Strips(int64_t length, int64_t columns) : length_(length) {
    const bool one = columns <= Vec<T>::width;
    const int64_t most = one ? strip_rows<1> : strip_rows<2>;
    rows_ = larger(1, ceil_div(length, larger(1, ceil_div(length, most))));
    const int64_t rest = length % rows_;
    full_ = one ? strip_instance<T, 1>(rows_) : strip_instance<T, 2>(rows_);
    rest_ = one ? strip_instance<T, 1>(rest) : strip_instance<T, 2>(rest);
  }

  void multiply(Strip<T> strip, const Segments& s, const Epilogue<T>& epilogue) const {
    for (int64_t i = 0; i < length_; i += rows_) {
      (length_ - i < rows_ ? rest_ : full_)(strip, s, epilogue);
      strip.a += rows_ * strip.a_row;
      strip.c += rows_ * strip.c_row;
    }
  }

 private:
  int64_t length_, rows_;
  MultiplyStrip<T> full_, rest_;
};

}  // namespace chainrule::CR_ISA
