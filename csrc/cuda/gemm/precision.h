// Precision of float32 products on the GPU. The bindings set it, and the host code of gemm_launch.h
// reads it.
#pragma once

#include <atomic>
#include <optional>
#include <utility>

namespace chainrule::cuda {

enum class Precision {
  highest,  // multiply-adds in float32
  tf32,     // operands rounded to TF32 (11 significant bits), on tensor cores; sums in float32
};

inline std::atomic<Precision> matmul_precision{Precision::highest};

// Overrides the precision for the calling thread while an instance exists. A Program uses it to
// replay each operation with the precision that was set when it was recorded.
class ScopedPrecision {
 public:
  explicit ScopedPrecision(Precision precision) : before_(std::exchange(fixed, precision)) {}
  ~ScopedPrecision() { fixed = before_; }
  ScopedPrecision(const ScopedPrecision&) = delete;
  ScopedPrecision& operator=(const ScopedPrecision&) = delete;

  static Precision current() { return fixed ? *fixed : matmul_precision.load(); }

 private:
  static inline thread_local std::optional<Precision> fixed;
  std::optional<Precision> before_;
};

}  // namespace chainrule::cuda
