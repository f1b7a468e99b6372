// Table of the GPU's operations, derived from ops.def. Constant data: nothing runs at load time.
#include "core/ops.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {

extern const Backend backend;
const Backend backend = {
    "cuda",
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

}  // namespace chainrule::cuda
