// What kernels count in 32 bits, and so how far: the bindings refuse more.
#pragma once

#include <cstdint>

namespace chainrule::cuda {

// Pixels along an axis of images, filters and windows' positions, and the weights of one filter or
// one channel. The sum of two such counts still fits.
constexpr int64_t most_counted = int64_t{1} << 30;

}  // namespace chainrule::cuda
