// Included by every operation's file: the declarations of the operations, and CR_INSTANTIATE.
#pragma once

#include "core/shape.h"

namespace chainrule::cuda {

#include "core/declarations.inc"

}  // namespace chainrule::cuda
