// The table of the CUDA backend.
#include "core/ops.h"
#include "cuda/kernel.h"

#define CR_BACKEND_NAME "cuda"

namespace chainrule::cuda {

#include "core/table.inc"

}  // namespace chainrule::cuda
