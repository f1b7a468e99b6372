// Where the maxima of pooling windows stood, as backward passes are given it.
#pragma once

#include "core/shape.h"
#include "cuda/runtime/device_errors.h"

namespace chainrule::cuda {

// Tells of places that their window does not have: no host has looked at those that a program
// finds. The passes themselves leave them out. In max_pool2d.cu for all.
void look_for_bad_places(const uint16_t* argmax, const MaxPool2d& p, Fault fault);

}  // namespace chainrule::cuda
