// Loops over the independent rows of a matrix.
#pragma once

#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

// f(row) for every row; as many rows a task as take about `cycles_of_task`. A row costs what 16
// more elements would, or there is one task for a batch's classes: softmax and cross-entropy of 128
// x 10 took 6 us on one thread.
constexpr int64_t cycles_of_task = 8'192;
template <class F>
void parallel_rows(int64_t rows, int64_t columns, int64_t cycles_per_element, F f) {
  if (rows == 0) return;  // of any length
  const int64_t cycles = cycles_per_element * (columns + 16);
  parallel_ranges(rows, 1, cycles_of_task / cycles, cycles, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

template <class T>
CR_INLINE T row_maximum(const T* x, int64_t n) {
  using V = Vec<T>;
  const T lowest = -__builtin_inff();
  return largest(fold_row(n, V::set(lowest), lowest, [](V best, V v) { return max(v, best); }, x));
}

template <class T>
CR_INLINE T row_sum(const T* x, int64_t n) {
  using V = Vec<T>;
  return sum(fold_row(n, V::zero(), T(0), [](V total, V v) { return total + v; }, x));
}

}  // namespace chainrule::CR_ISA
