// The choice of the instruction set. This code runs before the choice, so it is compiled without
// ISA flags.
#pragma once

#include <string>
#include <vector>

#include "core/ops.h"

namespace chainrule {

std::vector<std::string> backends_compiled();  // worst to best
std::vector<std::string> backends_runnable();  // those that this CPU and system can run
const Backend& active_backend() noexcept;
// Returns false and changes nothing if no runnable backend has this name.
bool select_backend(const std::string& name) noexcept;

}  // namespace chainrule
