// Included by every operation's file: the declarations of the operations in the namespace of this
// instruction set, CR_INSTANTIATE, and the loops.
#pragma once

#include "core/ops.h"
#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {
#include "core/declarations.inc"
}
