#include "cpu/available_cpus.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace chainrule {
namespace {

constexpr int longest_path = 4096;

struct File {
  std::FILE* handle = nullptr;
  explicit File(const char* path) noexcept : handle(std::fopen(path, "re")) {}
  ~File() {
    if (handle) std::fclose(handle);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
};

// Returns a / b rounded up, or 0 if there is no quota, which is "max" or -1.
int cpus_of(long long quota, long long period) noexcept {
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::clamp<long long>((quota - 1) / period + 1, 1, 1 << 20));
}

// Returns the quota in the folder `group`, or 0. cgroup v2 has one file with "quota period" or
// "max period", and v1 has a file for each. All are in microseconds.
int quota_in(const char* group, bool v2) noexcept {
  char path[longest_path];
  long long quota = 0, period = 0;
  const auto read = [&](const char* name, const char* format, auto... values) noexcept {
    const int length = std::snprintf(path, sizeof path, "%s/%s", group, name);
    if (length < 0 || length >= longest_path) return 0;
    const File file(path);
    return file.handle ? std::fscanf(file.handle, format, values...) : 0;
  };
  if (v2) return read("cpu.max", "%lld %lld", &quota, &period) == 2 ? cpus_of(quota, period) : 0;
  const bool complete = read("cpu.cfs_quota_us", "%lld", &quota) == 1 &&
                        read("cpu.cfs_period_us", "%lld", &period) == 1;
  return complete ? cpus_of(quota, period) : 0;
}

int smaller_quota(int a, int b) noexcept { return a == 0 || (b != 0 && b < a) ? b : a; }

// Returns the smallest quota of the group `own` below the folder `mount`, and of all groups above
// it. In a container the path may be the host's, while the mount is this group's own folder. Paths
// that do not exist have no quota.
int smallest_quota(const char* root, const char* mount, const char* own, bool v2) noexcept {
  char group[longest_path];
  const int length = std::snprintf(group, sizeof group, "%s/sys/fs/cgroup%s%s%s", root,
                                   *mount ? "/" : "", mount, own);
  if (length < 0 || length >= longest_path) return 0;
  const std::size_t own_length = std::strlen(own);
  char* const first = group + (static_cast<std::size_t>(length) - own_length);
  int cpus = 0;
  for (;;) {
    cpus = smaller_quota(cpus, quota_in(group, v2));
    if (*first == '\0') return cpus;
    *std::strrchr(first, '/') = '\0';
  }
}

bool has_controller(const char* controllers, const char* name) noexcept {
  const std::size_t length = std::strlen(name);
  for (const char* at = controllers; at; at = std::strchr(at, ',')) {
    at += *at == ',';
    if (std::strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0')) {
      return true;
    }
  }
  return false;
}

}  // namespace

int cgroup_cpus(const char* root) noexcept {
  char line[longest_path];
  if (std::snprintf(line, sizeof line, "%s/proc/self/cgroup", root) >= longest_path) return 0;
  const File file(line);
  int cpus = 0;
  // A line is "number:controllers:path". That of cgroup v2 has no controllers.
  while (file.handle && std::fgets(line, sizeof line, file.handle)) {
    line[std::strcspn(line, "\n")] = '\0';
    char* controllers = std::strchr(line, ':');
    char* own = controllers ? std::strchr(controllers + 1, ':') : nullptr;
    if (!own || own[1] != '/') continue;
    ++controllers;
    *own++ = '\0';
    if (*controllers == '\0') {
      cpus = smaller_quota(cpus, smallest_quota(root, "", own, true));
    } else if (has_controller(controllers, "cpu")) {
      // The folder has the name of all its controllers, and usually a link for each.
      for (const char* mount : {"cpu", static_cast<const char*>(controllers)}) {
        cpus = smaller_quota(cpus, smallest_quota(root, mount, own, false));
      }
    }
  }
  return cpus;
}

int available_cpus() noexcept {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int cpus = 1;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpus = std::max(1, CPU_COUNT(&mask));
  const int quota = cgroup_cpus("");
  return quota > 0 ? std::min(cpus, quota) : cpus;
}

}  // namespace chainrule
