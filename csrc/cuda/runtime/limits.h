// How far kernels count in 32 bits.
#pragma once

#include <cstdint>

namespace chainrule::cuda {

// Pixels along an axis of images, filters and windows' positions, the weights of one filter or one
// channel, and the terms of a sum that one block makes, which is cut into parts where it has more.
// An index below one such count and another count still add up in 32 bits.
constexpr int64_t most_counted = int64_t{1} << 30;

}  // namespace chainrule::cuda
