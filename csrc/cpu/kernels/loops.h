// Loops over arrays, written once: the body and the tail run the same lambda, the tail with
// partial loads, so the last few elements cannot behave differently. And loops over tasks.
#pragma once

#include "cpu/simd/vec.h"
#include "cpu/threads.h"

namespace chainrule::CR_ISA {

// task(index, worker) for every index in [0, tasks); see run_tasks.
template <class F>
void parallel(int64_t tasks, int64_t cycles, int workers, F task) {
  run_tasks(
      tasks, cycles, workers,
      [](void* context, int64_t index, int worker) { (*static_cast<F*>(context))(index, worker); },
      &task);
}

CR_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
CR_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
CR_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
CR_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// [0, n) in pieces of at most about `length`, whole multiples of `unit` but for the last; they
// never depend on the number of threads. f(begin, end) is called for each.
//
// More than one piece become a multiple of even_shares, if there are so many units: half of the
// images are then half of the pieces, and stay in the caches of one CPU from operation to
// operation. Where the CPUs share none, LeNet's batch is gathered in 37 us so, and its first
// layer's gradient rectified in 10; with pieces of one length, 46 and 12.
constexpr int64_t even_shares = 16;
template <class F>
void parallel_ranges(int64_t n, int64_t unit, int64_t length, int64_t cycles_each, F f) {
  const int64_t units = ceil_div(n, unit);
  int64_t pieces = ceil_div(n, larger(1, length));
  if (pieces > 1) pieces = smaller(units, round_up(pieces, even_shares));
  const auto first = [=](int64_t index) {  // index * units / pieces, which may be too large
    return units / pieces * index + units % pieces * index / pieces;
  };
  parallel(pieces, n * cycles_each, num_threads(), [&](int64_t index, int) {
    f(first(index) * unit, smaller(n, first(index + 1) * unit));
  });
}

// How much of a register lies inside the array: all of it, or some lanes.
struct Whole {
  template <class T>
  CR_INLINE Vec<T> load(const T* p) const {
    return Vec<T>::load(p);
  }
  template <class T>
  CR_INLINE void store(Vec<T> v, T* p) const {
    v.store(p);
  }
};
struct Part {
  int64_t lanes;
  template <class T>
  CR_INLINE Vec<T> load(const T* p) const {
    return Vec<T>::load(p, lanes, T(0));
  }
  template <class T>
  CR_INLINE void store(Vec<T> v, T* p) const {
    v.store(p, lanes);
  }
};

// f(first, Whole) for every whole register of a row, then f(first, Part) for what is left: two
// instances of one body, since a test at every load took as long as the arithmetic.
template <class T, class F>
CR_INLINE void for_registers(int64_t length, F f) {
  constexpr int64_t width = Vec<T>::width;
  int64_t i = 0;
  for (; i + width <= length; i += width) f(i, Whole());
  if (i < length) f(i, Part{length - i});
}

// f(register, Whole or Part) for up to `registers` of them, of which `length` numbers are real.
template <class T, int registers, class F>
CR_INLINE void for_lanes(int64_t length, F f) {
#pragma GCC unroll 4
  for (int v = 0; v < registers; ++v) {
    const int64_t left = length - v * Vec<T>::width;
    if (left >= Vec<T>::width) f(v, Whole());
    else if (left > 0) f(v, Part{left});
  }
}

// One register of the sum of `count` partial results, `step` elements apart, in order: how a sum
// over a batch gives the same bits whoever took which part of it.
template <class T, class Lanes>
CR_INLINE Vec<T> sum_of_parts(const T* from, int64_t count, int64_t step, Lanes lanes) {
  Vec<T> total = lanes.load(from);
  for (int64_t part = 1; part < count; ++part) total = total + lanes.load(from += step);
  return total;
}

constexpr int64_t elementwise_piece = 16'384, elementwise_unit = 64;

// y[i] = f(x[i]...)
//
// Captures are by value: through references the compiler reloads pointers for every register, and
// gradient descent took twice as long.
template <class T, class F, class... X>
void map(int64_t n, T* y, F f, const X*... x) {
  using V = Vec<T>;
  parallel_ranges(n, elementwise_unit, elementwise_piece, 1, [=](int64_t begin, int64_t end) {
    int64_t i = begin;
#pragma GCC unroll 4
    for (; i + V::width <= end; i += V::width) f(V::load(x + i)...).store(y + i);
    if (i < end) f(V::load(x + i, end - i, T(0))...).store(y + i, end - i);
  });
}

// The same over one row, without threads.
template <class T, class F>
CR_INLINE void map_row(int64_t n, T* y, F f, const T* x) {
  using V = Vec<T>;
  int64_t i = 0;
  for (; i + V::width <= n; i += V::width) f(V::load(x + i)).store(y + i);
  if (i < n) f(V::load(x + i, n - i, T(0))).store(y + i, n - i);
}

// accumulator = f(accumulator, x[i]...) over a row; missing lanes of the tail read `fill`.
template <class T, class F, class... X>
CR_INLINE Vec<T> fold_row(int64_t n, Vec<T> start, T fill, F f, const X*... x) {
  using V = Vec<T>;
  V accumulator = start;
  int64_t i = 0;
  for (; i + V::width <= n; i += V::width) accumulator = f(accumulator, V::load(x + i)...);
  if (i < n) accumulator = f(accumulator, V::load(x + i, n - i, fill)...);
  return accumulator;
}

// No NaN among them, and no infinity: times zero, all are zero. Four sums, lest each multiply-add
// wait for the last one.
template <class T>
CR_INLINE bool all_finite(int64_t n, const T* x) {
  using V = Vec<T>;
  constexpr int sums = 4;
  const auto add = [](V check, V v) { return fma(v, V::zero(), check); };
  V check[sums];
  for (V& one : check) one = V::zero();
  int64_t i = 0;
  for (; i + sums * V::width <= n; i += sums * V::width) {
#pragma GCC unroll 4
    for (int j = 0; j < sums; ++j) check[j] = add(check[j], V::load(x + i + j * V::width));
  }
  const V total = (check[0] + check[1]) + (check[2] + check[3]);
  return sum(fold_row(n - i, total, T(0), add, x + i)) == T(0);
}

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
