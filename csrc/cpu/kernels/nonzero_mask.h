// Sets of bits that say which elements of a matrix are not zero; NaN is not.
#pragma once

#include <type_traits>

#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

// Bit j of words[j / 64]: element j of a row.
template <class T>
void set_of_row(const T* row, int64_t length, uint64_t* words) {
  using V = Vec<T>;
  constexpr uint64_t all = (uint64_t{1} << V::width) - 1;
  for (int64_t first = 0; first < length; first += 64) {
    uint64_t word = 0;
    for_registers<T>(smaller(64, length - first), [&](int64_t j, auto lanes) {
      const uint64_t zeros = bits_of<T>(lanes.load(row + first + j) == V::zero());
      word |= (~zeros & all) << j;
    });
    words[first / 64] = word;
  }
}

// Bit i of words[j * word_count + i / 64]: element (i, j). A lane is a column, a bit of it a row.
template <class T>
void sets_of_columns(const T* matrix, int64_t rows, int64_t columns, uint64_t* words,
                     int64_t word_count) {
  using V = Vec<T>;
  using Word = typename Integer<T>::type;
  constexpr int64_t bits = 8 * sizeof(Word);
  for (int64_t first = 0; first < rows; first += bits) {
    const int64_t count = smaller(bits, rows - first);
    uint64_t* const to = words + first / 64;
    for_registers<T>(columns, [=](int64_t j, auto lanes) {
      typename V::Bits found{};
      for (int64_t i = 0; i < count; ++i) {
        const auto zero = lanes.load(matrix + (first + i) * columns + j) == V::zero();
        const Word bit = static_cast<Word>(uint64_t{1} << i);
        found |= zero ? typename V::Bits{} : bit - typename V::Bits{};
      }
      Word lane[V::width];
      __builtin_memcpy(lane, &found, sizeof lane);
      for (int64_t l = 0; l < smaller(V::width, columns - j); ++l) {
        const uint64_t word = static_cast<std::make_unsigned_t<Word>>(lane[l]);
        uint64_t& target = to[(j + l) * word_count];
        target = (first % 64 == 0 ? 0 : target) | word << first % 64;
      }
    });
  }
}

}  // namespace chainrule::CR_ISA
