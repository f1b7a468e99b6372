// Limits of 32-bit indexing in kernels.
#pragma once

#include <cstdint>

namespace chainrule::cuda {

// Largest axis of images, filters and output; largest number of weights per filter or per channel;
// most terms of a sum in one block (longer sums are split). The sum of two such numbers fits in 32
// bits.
constexpr int64_t max_extent = int64_t{1} << 30;

}  // namespace chainrule::cuda
