// How exactly float32 products are computed on the GPU: the one switch that the bindings set, and
// what the host code of gemm.h reads.
#pragma once

#include <atomic>
#include <optional>
#include <utility>

namespace chainrule::cuda {

enum class Precision {
  highest,  // multiply-adds in float32
  tf32,     // operands rounded to eleven bits, on tensor cores; sums in float32
};

inline std::atomic<Precision> matmul_precision{Precision::highest};

// While one lives, the calling thread's products are of its precision, whatever the switch says: an
// operation of a program is computed as it was when it was recorded.
class FixedPrecision {
 public:
  explicit FixedPrecision(Precision precision) : before_(std::exchange(fixed, precision)) {}
  ~FixedPrecision() { fixed = before_; }
  FixedPrecision(const FixedPrecision&) = delete;
  FixedPrecision& operator=(const FixedPrecision&) = delete;

  static Precision or_chosen() { return fixed ? *fixed : matmul_precision.load(); }

 private:
  static inline thread_local std::optional<Precision> fixed;
  std::optional<Precision> before_;
};

}  // namespace chainrule::cuda
