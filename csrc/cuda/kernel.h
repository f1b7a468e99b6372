// What every operation's file includes: the operations' signatures, and their instances.
#pragma once

#include "core/shape.h"

namespace chainrule::cuda {

#include "core/declarations.inc"

}  // namespace chainrule::cuda

// Both element types, with the signature that ops.def declared.
#define CR_INSTANTIATE(name)                  \
  template decltype(name<float>) name<float>; \
  template decltype(name<double>) name<double>
