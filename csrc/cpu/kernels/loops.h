// Loops over arrays, rows and tasks. The body and the tail of a loop run the same lambda. The tail
// uses partial loads, so the last elements cannot behave differently.
#pragma once

#include "cpu/simd/vec.h"
#include "cpu/threads.h"

namespace chainrule::CR_ISA {

// Calls task(index, worker) for every index in [0, tasks). See run_tasks.
template <class F>
void parallel_for(int64_t tasks, int64_t cycles, int workers, F task) {
  run_tasks(
      tasks, cycles, workers,
      [](void* context, int64_t index, int worker) { (*static_cast<F*>(context))(index, worker); },
      &task);
}

CR_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
CR_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
CR_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
CR_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Returns *index, or 0 unless it is in [0, end). The bindings have checked the array, but another
// thread may write to it since. So it is read once, and what is compared is what is used. It costs
// nothing that can be measured.
CR_INLINE int64_t checked_index(const int64_t* index, int64_t end) {
  const int64_t value = __atomic_load_n(index, __ATOMIC_RELAXED);
  return static_cast<uint64_t>(value) < static_cast<uint64_t>(end) ? value : 0;
}
// The same for the argmax of a window of `area` elements.
CR_INLINE int64_t checked_argmax(const uint16_t* argmax, int64_t area) {
  return min(__atomic_load_n(argmax, __ATOMIC_RELAXED), area - 1);
}

// Splits [0, n) into ranges of at most about `length` and calls f(begin, end) for each. All ranges
// but the last are multiples of `unit`. They do not depend on the number of threads.
//
// If there is more than one range, and if there are enough units, the number of ranges is a
// multiple of range_multiple. Half of the images are then half of the ranges, and they stay in the
// caches of one CPU from operation to operation. If the CPUs share no cache, LeNet's batch is
// gathered in 37 us, and the ReLU gradient of its first layer takes 10 us. With ranges of equal
// length these take 46 us and 12 us.
constexpr int64_t range_multiple = 16;
template <class F>
void parallel_for_ranges(int64_t n, int64_t unit, int64_t length, int64_t cycles_each, F f) {
  const int64_t units = ceil_div(n, unit);
  int64_t ranges = ceil_div(n, max(1, length));
  if (ranges > 1) ranges = min(units, round_up(ranges, range_multiple));
  const auto first = [=](int64_t index) {  // index * units / ranges without overflow
    return units / ranges * index + units % ranges * index / ranges;
  };
  parallel_for(ranges, n * cycles_each, num_threads(), [&](int64_t index, int) {
    f(first(index) * unit, min(n, first(index + 1) * unit));
  });
}

// The lanes of a vector that are inside the array: all of them, or the first few.
struct FullVector {
  template <class T>
  CR_INLINE Vec<T> load(const T* p) const {
    return Vec<T>::load(p);
  }
  template <class T>
  CR_INLINE void store(Vec<T> v, T* p) const {
    v.store(p);
  }
};
struct PartialVector {
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

// Calls f(first, FullVector) for every full vector of a row, then f(first, PartialVector) for the
// tail. These are two instances of one body. A test at every load took as long as the arithmetic.
template <class T, class F>
CR_INLINE void for_each_vector(int64_t length, F f) {
  constexpr int64_t width = Vec<T>::width;
  int64_t i = 0;
  for (; i + width <= length; i += width) f(i, FullVector());
  if (i < length) f(i, PartialVector{length - i});
}

// Calls f(v, FullVector or PartialVector) for the first vectors of `max_vectors`, which hold
// `length` elements.
template <class T, int max_vectors, class F>
CR_INLINE void for_each_vector_unrolled(int64_t length, F f) {
#pragma GCC unroll 4
  for (int v = 0; v < max_vectors; ++v) {
    const int64_t left = length - v * Vec<T>::width;
    if (left >= Vec<T>::width) f(v, FullVector());
    else if (left > 0) f(v, PartialVector{left});
  }
}

constexpr int64_t elementwise_range = 16'384, elementwise_multiple = 64;

// y[i] = f(x[i]...), on several threads. `cycles` is the time of f per element, if memory is fast.
//
// Captures are by value. With references the compiler reloads the pointers for every vector, and
// gradient descent took twice as long.
template <int64_t cycles = 1, class T, class F, class... X>
void map(int64_t n, T* y, F f, const X*... x) {
  using V = Vec<T>;
  parallel_for_ranges(n, elementwise_multiple, elementwise_range, cycles,
                      [=](int64_t begin, int64_t end) {
                        int64_t i = begin;
#pragma GCC unroll 4
                        for (; i + V::width <= end; i += V::width)
                          f(V::load(x + i)...).store(y + i);
                        if (i < end) f(V::load(x + i, end - i, T(0))...).store(y + i, end - i);
                      });
}

// A row longer than this is processed in parts, because a call must answer Ctrl-C.
constexpr int64_t row_part = int64_t{1} << 20;

// Calls part(begin, end) for the parts of a row, which are whole vectors except for the last.
template <class F>
CR_INLINE void for_each_row_part(int64_t n, F part) {
  for (int64_t begin = 0;; begin += row_part) {  // one call, so that it is inlined
    const int64_t end = min(n, begin + row_part);
    part(begin, end);
    if (end == n || !keep_going(row_part)) return;
  }
}

// The same over one row, on one thread.
template <class T, class F>
CR_INLINE void map_row(int64_t n, T* y, F f, const T* x) {
  using V = Vec<T>;
  for (int64_t i = 0;;) {
    const int64_t end = min(n, i + row_part);
    for (; i + V::width <= end; i += V::width) f(V::load(x + i)).store(y + i);
    if (end == n) {
      if (i < n) f(V::load(x + i, n - i, T(0))).store(y + i, n - i);
      return;
    }
    if (!keep_going(row_part)) return;
  }
}

// Sets n elements to zero, on one thread.
template <class T>
CR_INLINE void fill_zero(T* y, int64_t n) {
  for_each_row_part(n, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = T(0);
  });
}

// accumulator = f(accumulator, x[i]...) over a row. Missing lanes of the tail are `fill`.
template <class T, class F, class... X>
CR_INLINE Vec<T> fold_row(int64_t n, Vec<T> start, T fill, F f, const X*... x) {
  using V = Vec<T>;
  V accumulator = start;
  for (int64_t i = 0;;) {
    const int64_t end = min(n, i + row_part);
    for (; i + V::width <= end; i += V::width) accumulator = f(accumulator, V::load(x + i)...);
    if (end == n) {
      if (i < n) accumulator = f(accumulator, V::load(x + i, n - i, fill)...);
      return accumulator;
    }
    if (!keep_going(row_part)) return accumulator;
  }
}

// Returns true if no element is NaN or infinite: then every element times zero is zero. There are
// four sums, so that a multiply-add does not wait for the previous one.
template <class T>
CR_INLINE bool all_finite(int64_t n, const T* x) {
  using V = Vec<T>;
  constexpr int sums = 4;
  const auto add = [](V check, V v) { return fma(v, V::zero(), check); };
  V check[sums];
  for (V& v : check) v = V::zero();
  int64_t i = 0;
  for (; i + sums * V::width <= n; i += sums * V::width) {
#pragma GCC unroll 4
    for (int j = 0; j < sums; ++j) check[j] = add(check[j], V::load(x + i + j * V::width));
  }
  const V total = (check[0] + check[1]) + (check[2] + check[3]);
  return reduce_sum(fold_row(n - i, total, T(0), add, x + i)) == T(0);
}

// Calls f(row) for every row. A task has the rows of about `cycles_per_task`. The estimate adds 16
// elements per row. Without them softmax and cross-entropy of 128 x 10 would be one task, which
// took 6 us on one thread.
constexpr int64_t cycles_per_task = 8'192;
template <class F>
void parallel_for_rows(int64_t rows, int64_t columns, int64_t cycles_per_element, F f) {
  if (rows == 0) return;  // `columns` may be any number then
  const int64_t cycles = cycles_per_element * (columns + 16);
  parallel_for_ranges(rows, 1, cycles_per_task / cycles, cycles, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

template <class T>
CR_INLINE T row_max(const T* x, int64_t n) {
  using V = Vec<T>;
  const T lowest = -__builtin_inff();
  return reduce_max(
      fold_row(n, V::set(lowest), lowest, [](V best, V v) { return max(v, best); }, x));
}

}  // namespace chainrule::CR_ISA
