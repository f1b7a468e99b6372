// The number of CPUs that this process may use.
#pragma once

namespace chainrule {

// Returns the minimum of the process's affinity mask and its cgroup quota.
int available_cpus() noexcept;

// Returns the CPU quota of the process's cgroup and of all groups above it, rounded up, or 0 if
// there is no quota. `root` is "" or the root of another file system, without a final slash.
int cgroup_cpus(const char* root) noexcept;

}  // namespace chainrule
