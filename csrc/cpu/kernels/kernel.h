// What a kernel file begins with: every operation's declaration, in this instruction set's
// namespace; and what it ends with.
#pragma once

#include "core/ops.h"
#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {
#include "core/declarations.inc"
}

// Both element types, with the signature that ops.def declared.
#define CR_INSTANTIATE(name)                  \
  template decltype(name<float>) name<float>; \
  template decltype(name<double>) name<double>
