// What kernels found wrong with indices that they were given.
#pragma once

#include <string>

namespace chainrule::cuda {

// As bits. A kernel that meets one takes 0 for the index and goes on.
enum Fault : int { bad_index = 1, bad_label = 2 };

inline std::string fault_message(int found) {
  return found & bad_index
             ? "gather: indices must lie in [0, rows of the source): a program met another"
             : "softmax_cross_entropy: labels must lie in [0, classes): a program met another";
}

}  // namespace chainrule::cuda
