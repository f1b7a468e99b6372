// Division by a number that a kernel is given: a multiplication for what fits in 31 bits.
#pragma once

#include <cstdint>

#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// With 2^(l-1) < d <= 2^l and factor = ceil(2^(31+l) / d), factor · d exceeds 2^(31+l) by less than
// d <= 2^l. So n · factor / 2^(31+l) exceeds n / d by less than n / 2^31 / d < 1 / d, too little to
// reach the next whole number.
class Divider {
 public:
  explicit Divider(int64_t by = 1) : by_(by > 0 ? by : 1) {
    if (by_ >= int64_t{1} << 31) return;
    while (int64_t{1} << shift_ < by_) ++shift_;
    const uint64_t power = uint64_t{1} << (31 + shift_), d = static_cast<uint64_t>(by_);
    factor_ = static_cast<uint32_t>((power + d - 1) / d);
  }

  __host__ __device__ int64_t by() const { return by_; }

  // n below 2^31, and so is the divisor.
  __device__ int small(int n) const {
    const uint32_t high = __umulhi(static_cast<uint32_t>(n), factor_);
    // The product's upper word is its quotient by 2^32; one is shifted out too much for d = 1.
    return shift_ == 0 ? n : static_cast<int>(high >> (shift_ - 1));
  }
  __device__ int64_t operator()(int64_t n) const {
    if (n >> 31 == 0 && by_ >> 31 == 0) return small(static_cast<int>(n));
    return n / by_;
  }

 private:
  int64_t by_;
  uint32_t factor_ = 0;
  int shift_ = 0;
};

}  // namespace chainrule::cuda
