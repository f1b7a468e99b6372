// Included by every operation's file: declarations of the operations, and the instantiation macro.
#pragma once

#include "core/shape.h"

namespace chainrule::cuda {

#include "core/backend.inc"

}  // namespace chainrule::cuda

// Instantiates an operation for both element types, with the signature declared in ops.def.
#define CR_INSTANTIATE(name)                  \
  template decltype(name<float>) name<float>; \
  template decltype(name<double>) name<double>
