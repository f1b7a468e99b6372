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
      found & bad_index   ? "gather: indices must lie in [0, rows of the source)"
      : found & bad_label ? "softmax_cross_entropy: labels must lie in [0, classes)"
      : found & bad_argmax_max_pool2d
          ? "max_pool2d_backward: argmax must lie in [0, elements of a window)"
      : found & bad_argmax_backward_input
          ? "conv2d_pooled_backward_input: argmax must lie in [0, elements of a window)"
          : "conv2d_pooled_backward_weight: argmax must lie in [0, elements of a window)";
  return what + ": a program met another";
}

}  // namespace chainrule::cuda
