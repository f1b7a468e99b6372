// Rows of a matrix by index, to copy a batch from a data set. uint8 pixels are scaled to [0, 1].
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {

// Returns x / 255 of a uint8, correctly rounded. 1 / 255 = 257 / 65536 + 1 / (255 · 65536). The
// first product is exact. The error of the second does not change the result. The digits of x / 255
// repeat after 8 bits, so the quotient is never within 2^-8 units in the last place of a rounding
// boundary. 128 images of 784 pixels take 5.0 us, and 5.9 us with a division (Zen 5, one thread).
template <class T>
CR_INLINE T divide_by_255(uint8_t x) {
  constexpr T high = T(257) / T(65536), low = T(1) / (T(255) * T(65536));
  return static_cast<T>(x) * high + static_cast<T>(x) * low;
}

template <class T>
void gather(const void* source, bool source_is_uint8, const int64_t* indices, T* y,
            const Gather& s) {
  const int64_t n = s.columns;
  parallel_for_rows(s.rows, n, 1, [&](int64_t row) {
    const int64_t start = checked_index(indices + row, s.source_rows) * n;
    T* const to = y + row * n;
    if (source_is_uint8) {
      const uint8_t* const from = static_cast<const uint8_t*>(source) + start;
      for_each_row_part(n, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = divide_by_255<T>(from[i]);
      });
    } else {
      map_row(n, to, [](Vec<T> v) { return v; }, static_cast<const T*>(source) + start);
    }
  });
}

CR_INSTANTIATE(gather);

}  // namespace chainrule::CR_ISA
