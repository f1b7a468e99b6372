// Eight 16-bit integers in one register of the baseline instruction set, for the runtime files of
// csrc/cpu, which are compiled once. Kernels use Vec instead.
#pragma once

#include <cstdint>

#if defined(CR_ISA)
#error "uint16x8.h is not for kernels: its type is not in the namespace of an instruction set"
#endif

namespace chainrule {

using Uint16x8 [[gnu::vector_size(16)]] = uint16_t;

}  // namespace chainrule
