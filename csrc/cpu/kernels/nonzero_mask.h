// Bit masks of the nonzero elements of a matrix. NaN is nonzero.
#pragma once

#include <type_traits>

#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

// Sets bit j % 64 of mask[j / 64] if element j of the row is nonzero.
template <class T>
void nonzero_mask_of_row(const T* row, int64_t length, uint64_t* mask) {
  using V = Vec<T>;
  constexpr uint64_t all = (uint64_t{1} << V::width) - 1;
  for (int64_t first = 0; first < length; first += 64) {
    if (first % row_part == row_part - 64 && !keep_going(row_part)) return;
    uint64_t word = 0;
    for_each_vector<T>(min(64, length - first), [&](int64_t j, auto lanes) {
      const uint64_t zeros = mask_bits<T>(lanes.load(row + first + j) == V::zero());
      word |= (~zeros & all) << j;
    });
    mask[first / 64] = word;
  }
}

// Sets bit i % 64 of mask[j * mask_words + i / 64] if element (i, j) is nonzero. In the loop a lane
// is a column, and a bit of it is a row.
template <class T>
void nonzero_mask_of_columns(const T* matrix, int64_t rows, int64_t columns, uint64_t* mask,
                             int64_t mask_words) {
  using V = Vec<T>;
  using Word = typename Integer<T>::type;
  constexpr int64_t bits = 8 * sizeof(Word);
  for (int64_t first = 0; first < rows; first += bits) {
    const int64_t count = min(bits, rows - first);
    uint64_t* const to = mask + first / 64;
    for_each_vector<T>(columns, [=](int64_t j, auto lanes) {
      typename V::Bits nonzero{};
      for (int64_t i = 0; i < count; ++i) {
        const auto zero = lanes.load(matrix + (first + i) * columns + j) == V::zero();
        const Word bit = static_cast<Word>(uint64_t{1} << i);
        nonzero |= zero ? typename V::Bits{} : bit - typename V::Bits{};
      }
      Word lane[V::width];
      __builtin_memcpy(lane, &nonzero, sizeof lane);
      for (int64_t l = 0; l < min(V::width, columns - j); ++l) {
        const uint64_t word = static_cast<std::make_unsigned_t<Word>>(lane[l]);
        uint64_t& target = to[(j + l) * mask_words];
        target = (first % 64 == 0 ? 0 : target) | word << first % 64;
      }
    });
  }
}

}  // namespace chainrule::CR_ISA
