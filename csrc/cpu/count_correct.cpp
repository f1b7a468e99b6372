#include "cpu/count_correct.h"

#include <algorithm>
#include <type_traits>

namespace chainrule {
namespace {

// Compares with the element of the class instead of searching for the maximum, and stops at a
// larger one. An integer as wide as the elements, and no branch within a block, let the compiler
// vectorize.
template <class T>
bool is_first_maximum(const T* row, int64_t columns, int64_t column) noexcept {
  using Mask = std::conditional_t<sizeof(T) == sizeof(int32_t), int32_t, int64_t>;
  constexpr int64_t block = 256;
  const T value = row[column];
  Mask wrong = value != value;
  for (int64_t begin = 0; begin < columns && !wrong; begin += block) {
    const int64_t end = std::min(begin + block, columns);
    const int64_t middle = std::clamp(column, begin, end);
    for (int64_t j = begin; j < middle; ++j) wrong |= !(row[j] < value);
    for (int64_t j = middle; j < end; ++j) wrong |= !(row[j] <= value);
  }
  return !wrong;
}

}  // namespace

template <class T>
int64_t count_correct(const T* output, const int64_t* classes, int64_t rows,
                      int64_t columns) noexcept {
  int64_t count = 0;
  for (int64_t i = 0; i < rows; ++i) {
    // Read once: another thread may write to the array.
    const int64_t column = __atomic_load_n(classes + i, __ATOMIC_RELAXED);
    if (columns == 1) {
      const T logit = output[i];
      count += logit > 0 ? column == 1 : logit <= 0 && column == 0;
      continue;
    }
    count +=
        column >= 0 && column < columns && is_first_maximum(output + i * columns, columns, column);
  }
  return count;
}

template int64_t count_correct(const float*, const int64_t*, int64_t, int64_t) noexcept;
template int64_t count_correct(const double*, const int64_t*, int64_t, int64_t) noexcept;

}  // namespace chainrule
