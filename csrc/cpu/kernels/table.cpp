// The table of this instruction set.
#include "core/ops.h"

#define CR_STRING_(x) #x
#define CR_STRING(x) CR_STRING_(x)
#define CR_BACKEND_NAME CR_STRING(CR_ISA)

namespace chainrule::CR_ISA {

#include "core/declarations.inc"
#include "core/table.inc"

}  // namespace chainrule::CR_ISA
