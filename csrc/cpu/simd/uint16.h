// Loads and stores of 16-bit integers, with as many lanes as Vec<T>, for argmax.
#pragma once

#include "cpu/simd/vec.h"

namespace chainrule::CR_ISA {

#if CR_VECTOR_BYTES != 0
template <class T>
struct NarrowLanes {
  typedef uint16_t type __attribute__((vector_size(Vec<T>::width * 2)));
};
#endif

// Loads one integer per lane and extends it to the width of T.
template <class T>
CR_INLINE typename Vec<T>::Bits load_uint16(const uint16_t* p) {
#if CR_VECTOR_BYTES == 0
  return *p;
#else
  typename NarrowLanes<T>::type narrow;
  __builtin_memcpy(&narrow, p, sizeof narrow);
  return __builtin_convertvector(narrow, typename Vec<T>::Bits);
#endif
}

// Stores the low 16 bits of the first `lanes` lanes.
template <class T>
CR_INLINE void store_uint16(typename Vec<T>::Bits v, int64_t lanes, uint16_t* p) {
#if CR_VECTOR_BYTES == 0
  if (lanes > 0) *p = static_cast<uint16_t>(v);
#else
  using Narrow = typename NarrowLanes<T>::type;
  const Narrow narrow = __builtin_convertvector(v, Narrow);
  if (lanes == Vec<T>::width) {
    __builtin_memcpy(p, &narrow, sizeof narrow);
  } else {
    uint16_t lane[Vec<T>::width];
    __builtin_memcpy(lane, &narrow, sizeof narrow);
    for (int64_t i = 0; i < lanes; ++i) p[i] = lane[i];
  }
#endif
}

}  // namespace chainrule::CR_ISA
