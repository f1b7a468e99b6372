// This instruction set's table, derived from ops.def: constant data, nothing runs at load.
#include "core/ops.h"

#define CR_STRING_(x) #x
#define CR_STRING(x) CR_STRING_(x)

namespace chainrule::CR_ISA {

#include "core/declarations.inc"

extern const Backend backend;
const Backend backend = {
    CR_STRING(CR_ISA),
    {
#define CR_OP(name, parameters) name<float>,
#define CR_WORKSPACE(name, parameters) name<float>,
#include "core/ops.def"
    },
    {
#define CR_OP(name, parameters) name<double>,
#define CR_WORKSPACE(name, parameters) name<double>,
#include "core/ops.def"
    },
};

}  // namespace chainrule::CR_ISA
