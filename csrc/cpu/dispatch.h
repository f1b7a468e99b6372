// Which instruction set runs. Compiled without ISA flags: this code runs before the choice.
#pragma once

#include <string>
#include <vector>

#include "core/ops.h"

namespace chainrule {

std::vector<std::string> backends_compiled();  // worst to best
std::vector<std::string> backends_runnable();  // of these, the ones this CPU and system can run
const Backend& active_backend() noexcept;
// False when no such backend runs here; the active one then stays.
bool select_backend(const std::string& name) noexcept;

}  // namespace chainrule
