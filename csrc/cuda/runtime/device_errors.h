// What kernels found wrong with indices that they were given.
#pragma once

#include <string>

namespace chainrule::cuda {

// As bits. A kernel that meets one takes 0 for the index, or leaves the element out, and goes on.
enum Fault : int {
  bad_index = 1,
  bad_label = 2,
  bad_place = 4,
  bad_place_to_input = 8,
  bad_place_to_weight = 16,
};

// Of the first of them.
inline std::string fault_message(int found) {
  const std::string what =
      found & bad_index   ? "gather: indices must lie in [0, rows of the source)"
      : found & bad_label ? "softmax_cross_entropy: labels must lie in [0, classes)"
      : found & bad_place ? "max_pool2d_backward: argmax must lie in [0, elements of a window)"
      : found & bad_place_to_input
          ? "conv2d_pooled_backward_input: argmax must lie in [0, elements of a window)"
          : "conv2d_pooled_backward_weight: argmax must lie in [0, elements of a window)";
  return what + ": a program met another";
}

}  // namespace chainrule::cuda
