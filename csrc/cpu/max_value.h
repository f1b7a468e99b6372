// The maximum of an array of 16-bit integers, for the check of argmax before a backward pass.
#pragma once

#include <cstdint>

namespace chainrule {

// Returns the largest of `count` values, 0 if there are no values. Runs on the thread pool.
uint16_t max_value(const uint16_t* values, int64_t count) noexcept;

}  // namespace chainrule
