// A tall and narrow tile of c = a · b, for few columns: one or two registers of them, and as many
// rows as there are registers for.
//
//   rows x columns     14 x 16 or 12 x 32 with 32 registers (float32, AVX-512); 10 x 8, 5 x 16 with
//   16
//
// The six rows of gemm.h's tile would wait for the multiply-adds before them (six in flight, where
// two a cycle of four cycles' latency want eight), and pay its entry and exit for too little. Three
// rows share a pointer, as x86 addresses them, or fourteen pointers would not fit the general
// registers: they lie the same distance apart, and so do the threes. Tried and lost: 28 x 16, whose
// ten pointers spill (LeNet's first layer 2.5 times slower).
#pragma once

#include "cpu/kernels/gemm/microkernel.h"

namespace chainrule::CR_ISA {

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
