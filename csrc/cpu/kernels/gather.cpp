// Rows by their indices: a batch from the data set, its pixels turned from bytes to [0, 1].
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/rows.h"

namespace chainrule::CR_ISA {

template <class T>
void gather(const void* source, bool bytes, const int64_t* indices, T* y, const Gather& s) {
  const int64_t n = s.columns;
  parallel_rows(s.rows, n, 1, [&](int64_t row) {
    const int64_t start = indices[row] * n;
    T* const to = y + row * n;
    if (bytes) {
      const uint8_t* const from = static_cast<const uint8_t*>(source) + start;
      for (int64_t i = 0; i < n; ++i) to[i] = static_cast<T>(from[i]) / T(255);
    } else {
      map_row(n, to, [](Vec<T> v) { return v; }, static_cast<const T*>(source) + start);
    }
  });
}

CR_INSTANTIATE(gather);

}  // namespace chainrule::CR_ISA
