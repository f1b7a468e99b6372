// A sum of any length in one thread.
#pragma once

#include <cstdint>

#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

// 1024 terms are a part, and 1024 parts are a block. Each is added in order, so the error does not
// grow with the length before 2^30 terms. A sum that fits one part has the order of a plain loop.
template <class T>
struct LongSum {
  static constexpr int64_t max_terms = 1024;
  T part = T(0);  // the caller adds terms here, then calls added()

  // `count` is the number of terms until now. It may be a multiple of a power of two below 1024.
  __device__ __forceinline__ void added(int64_t count) {
    if (count % max_terms != 0) return;
    block_ += part;
    part = T(0);
    if (count % (max_terms * max_terms) != 0) return;
    blocks_ += block_;
    block_ = T(0);
  }
  __device__ __forceinline__ T total() const { return blocks_ + (block_ + part); }

 private:
  T block_ = T(0), blocks_ = T(0);
};

}  // namespace chainrule::cuda
