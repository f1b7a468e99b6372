// Integer division by a runtime constant, as a multiplication and a shift if the dividend fits in
// 31 bits.
#pragma once

#include <cstdint>

#include "cuda/runtime/simt.h"

namespace chainrule::cuda {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// With 2^(l-1) < d <= 2^l and factor = ceil(2^(31+l) / d), factor · d exceeds 2^(31+l) by less than
// d <= 2^l. So n · factor / 2^(31+l) exceeds n / d by less than n / 2^31 / d < 1 / d. That is too
// little to reach the next integer.
class FastDivisor {
 public:
  explicit FastDivisor(int64_t divisor = 1) : divisor_(divisor > 0 ? divisor : 1) {
    if (divisor_ >= int64_t{1} << 31) return;
    while (int64_t{1} << shift_ < divisor_) ++shift_;
    const uint64_t power = uint64_t{1} << (31 + shift_), d = static_cast<uint64_t>(divisor_);
    factor_ = static_cast<uint32_t>((power + d - 1) / d);
  }

  __host__ __device__ int64_t divisor() const { return divisor_; }

  // Requires n and the divisor to be below 2^31.
  __device__ int divide31(int n) const {
    const uint32_t high = __umulhi(static_cast<uint32_t>(n), factor_);
    // The upper word is the product divided by 2^32. If d = 1 the shift would be -1.
    return shift_ == 0 ? n : static_cast<int>(high >> (shift_ - 1));
  }
  __device__ int64_t divide(int64_t n) const {
    if (n >> 31 == 0 && divisor_ >> 31 == 0) return divide31(static_cast<int>(n));
    return n / divisor_;
  }

 private:
  int64_t divisor_;
  uint32_t factor_ = 0;
  int shift_ = 0;
};

}  // namespace chainrule::cuda
