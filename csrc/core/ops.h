// The table of a backend: one function pointer per line of ops.def and element type.
#pragma once

#include "core/shape.h"

namespace chainrule {

template <class T>
struct Ops {
#define CR_OP(name, parameters) void(*name) parameters;
#define CR_WORKSPACE(name, parameters) int64_t(*name) parameters;
#include "core/ops.def"
};

struct Backend {
  const char* name;
  Ops<float> f32;
  Ops<double> f64;
};

}  // namespace chainrule
