// Sums of any length. A sum in order of n float32 numbers of one sign stalls at 2^24 terms, because
// each addition rounds to the precision of the total. Here at most a few thousand numbers are added
// in order. The sums of such parts are added pairwise, so the error grows with log n only. Sums
// that fit one part have the order of a plain loop.
#pragma once

#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

// Terms per part. A lane of a vector has a part of its own.
constexpr int64_t max_part_terms = 1024;

template <class T, class F>
Vec<T> sum_halves(int64_t begin, int64_t end, int64_t length, const F& part) {
  if (end - begin <= length) return part(begin, end);
  if (end - begin > row_part && !keep_going(row_part)) return Vec<T>::zero();
  const int64_t middle = begin + ceil_div(ceil_div(end - begin, length), 2) * length;
  const Vec<T> first = sum_halves<T>(begin, middle, length, part);
  return first + sum_halves<T>(middle, end, length, part);
}

// Returns the sum of part(begin, end) over [0, n) in parts of `length`, added pairwise.
template <class T, class F>
CR_INLINE Vec<T> sum_in_parts(int64_t n, int64_t length, const F& part) {
  if (n <= length) return part(0, n);
  return sum_halves<T>(0, n, length, part);
}

// Returns a row's sum, where add(total, x[i]...) adds a vector. Missing lanes of the tail are
// `fill`. A row of one part is written out. As a call it takes 7 ns more.
template <class T, class F, class... X>
CR_INLINE T sum_row(int64_t n, T fill, F add, const X*... x) {
  using V = Vec<T>;
  constexpr int64_t length = max_part_terms * V::width;
  if (n <= length) return reduce_sum(fold_row(n, V::zero(), fill, add, x...));
  return reduce_sum(sum_halves<T>(0, n, length, [=](int64_t begin, int64_t end) {
    return fold_row(end - begin, V::zero(), fill, add, (x + begin)...);
  }));
}

template <class T>
CR_INLINE T row_sum(const T* x, int64_t n) {
  return sum_row(n, T(0), [](Vec<T> total, Vec<T> v) { return total + v; }, x);
}

// Returns one vector of the sum of `count` partial results, `step` elements apart. The order does
// not depend on the number of threads, so a sum over a batch has the same bits for any assignment
// of the parts to threads.
template <class T, class Lanes>
CR_INLINE Vec<T> sum_partials(const T* from, int64_t count, int64_t step, Lanes lanes) {
  constexpr int64_t length = 64;
  return sum_in_parts<T>(count, length, [=](int64_t begin, int64_t end) {
    const T* partial = from + begin * step;
    Vec<T> total = lanes.load(partial);
    for (int64_t i = begin + 1; i < end; ++i) total = total + lanes.load(partial += step);
    return total;
  });
}

// Pairwise addition of a sequence of arrays. The caller computes one subtotal after the other in
// the same array. `levels` buffers hold the sums of 1, 2, 4, ... subtotals.
template <class T>
class Subtotals {
 public:
  // Returns the number of buffers for `count` subtotals, of which the last is not pushed.
  static int64_t levels(int64_t count) {
    return count <= 1 ? 0 : 64 - __builtin_clzll(static_cast<uint64_t>(count - 1));
  }

  // The buffers are `step` elements apart.
  Subtotals(T* buffers, int64_t step) : buffers_(buffers), step_(step) {}

  // Stores elements [begin, end) of subtotal number `index` and clears them.
  void push(int64_t index, T* subtotal, int64_t begin, int64_t end) const {
    const int carried = __builtin_ctzll(~static_cast<uint64_t>(index));
    for_each_vector<T>(end - begin, [&](int64_t i, auto lanes) {
      Vec<T> total = lanes.load(subtotal + begin + i);
      T* level = buffers_ + begin + i;
      for (int l = 0; l < carried; ++l, level += step_) total = lanes.load(level) + total;
      lanes.store(total, level);
      lanes.store(Vec<T>::zero(), subtotal + begin + i);
    });
  }

  // Adds all subtotals before number `index` to elements [begin, end) of it.
  void add_to(int64_t index, T* subtotal, int64_t begin, int64_t end) const {
    if (index == 0) return;
    for_each_vector<T>(end - begin, [&](int64_t i, auto lanes) {
      Vec<T> total = lanes.load(subtotal + begin + i);
      const T* level = buffers_ + begin + i;
      for (auto bits = static_cast<uint64_t>(index); bits != 0; bits >>= 1, level += step_) {
        if (bits & 1) total = lanes.load(level) + total;
      }
      lanes.store(total, subtotal + begin + i);
    });
  }

 private:
  T* buffers_;
  int64_t step_;
};

}  // namespace chainrule::CR_ISA
