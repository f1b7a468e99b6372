// Errors in index data that kernels detect.
#pragma once

#include <string>

namespace chainrule::cuda {

// Bits of an error word. A kernel that finds an error uses index 0, or skips the element, and
// continues.
enum DeviceError : int {
  bad_index = 1,
  bad_label = 2,
  bad_argmax_max_pool2d = 4,
  bad_argmax_backward_input = 8,
  bad_argmax_backward_weight = 16,
};

// Returns the message of the first error in the mask.
inline std::string device_error_message(int found) {
  const std::string what =
      found & bad_index   ? "gather: index out of range [0, rows)"
      : found & bad_label ? "softmax_cross_entropy: label out of range [0, classes)"
      : found & bad_argmax_max_pool2d
          ? "max_pool2d_backward: argmax out of range [0, window elements)"
      : found & bad_argmax_backward_input
          ? "conv2d_pooled_backward_input: argmax out of range [0, window elements)"
          : "conv2d_pooled_backward_weight: argmax out of range [0, window elements)";
  return what + " while running a Program";
}

}  // namespace chainrule::cuda
