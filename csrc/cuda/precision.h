// How exactly float32 products are computed on the GPU: the one switch that the bindings set and
// the host code of gemm.h reads.
#pragma once

#include <atomic>

namespace chainrule::cuda {

enum class Precision {
  highest,  // multiply-adds in float32
  tf32,     // operands rounded to eleven bits, on tensor cores; sums in float32
};

inline std::atomic<Precision> matmul_precision{Precision::highest};

}  // namespace chainrule::cuda
