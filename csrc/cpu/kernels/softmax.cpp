// Softmax of each row, eq. (55)–(57). The maximum of the row is subtracted first, so a finite row
// does not overflow. A row with NaN or +inf, or with -inf only, becomes NaN, because inf - inf is
// NaN.
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/long_sums.h"
#include "cpu/simd/math.h"

namespace chainrule::CR_ISA {

template <class T>
void softmax(const T* x, T* y, const Rows& s) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  parallel_for_rows(s.rows, n, 4, [&](int64_t row) {
    const T* const from = x + row * n;
    T* const to = y + row * n;
    const V top = V::set(row_max(from, n));
    map_row(n, to, [=](V v) { return exp(v - top); }, from);
    const V inverse = V::set(T(1) / row_sum(to, n));
    map_row(n, to, [=](V v) { return v * inverse; }, to);
  });
}

// dx_i = y_i (dy_i - Σ_k dy_k y_k), from eq. (56) and (57).
template <class T>
void softmax_backward(const T* dy, const T* y, T* dx, const Rows& s) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  parallel_for_rows(s.rows, n, 2, [&](int64_t row) {
    const T* const g = dy + row * n;
    const T* const p = y + row * n;
    T* const to = dx + row * n;
    const V inner =
        V::set(sum_row(n, T(0), [](V total, V a, V b) { return fma(a, b, total); }, g, p));
    for_each_row_part(n, [=](int64_t begin, int64_t end) {
      int64_t i = begin;
      for (; i + V::width <= end; i += V::width) {
        (V::load(p + i) * (V::load(g + i) - inner)).store(to + i);
      }
      if (i < end) {
        const int64_t left = end - i;
        (V::load(p + i, left, T(0)) * (V::load(g + i, left, T(0)) - inner)).store(to + i, left);
      }
    });
  });
}

template <class T>
void log_softmax(const T* x, T* y, const Rows& s) {
  using V = Vec<T>;
  const int64_t n = s.columns;
  parallel_for_rows(s.rows, n, 4, [&](int64_t row) {
    const T* const from = x + row * n;
    T* const to = y + row * n;
    const T row_maximum = row_max(from, n);
    const V top = V::set(row_maximum);
    // Missing lanes are -inf, whose exponential is 0. The sum is computed before y is written,
    // because y may be x.
    const T total =
        sum_row(n, T(-__builtin_inff()), [=](V sum, V v) { return sum + exp(v - top); }, from);
    const V shift = V::set(log(total));
    map_row(n, to, [=](V v) { return v - top - shift; }, from);
  });
}

CR_INSTANTIATE(softmax);
CR_INSTANTIATE(softmax_backward);
CR_INSTANTIATE(log_softmax);

}  // namespace chainrule::CR_ISA
