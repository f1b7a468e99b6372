#include "cpu/dispatch.h"

#include <atomic>

namespace chainrule {

#define CR_DECLARE(isa)         \
  namespace isa {               \
  extern const Backend backend; \
  }
CR_DECLARE(scalar)
#if defined(__x86_64__)
CR_DECLARE(sse2)
CR_DECLARE(avx2)
CR_DECLARE(avx512)
#elif defined(__aarch64__)
CR_DECLARE(neon)
#endif
#undef CR_DECLARE

namespace {

struct Candidate {
  const Backend* backend;
  bool (*runs_here)();
};

// Worst to best: the last one that runs here is chosen. The compiler's builtin also checks that the
// operating system saves the registers.
const Candidate candidates[] = {
    {&scalar::backend, [] { return true; }},
#if defined(__x86_64__)
    {&sse2::backend, [] { return true; }},
    {&avx2::backend,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {&avx512::backend,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("fma");
     }},
#elif defined(__aarch64__)
    {&neon::backend, [] { return true; }},
#endif
};

const Backend* best() noexcept {
  const Backend* chosen = nullptr;
  for (const Candidate& candidate : candidates) {
    if (candidate.runs_here()) chosen = candidate.backend;
  }
  return chosen;
}

std::atomic<const Backend*>& active() noexcept {
  static std::atomic<const Backend*> pointer{best()};
  return pointer;
}

}  // namespace

std::vector<std::string> backends_compiled() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates) names.emplace_back(candidate.backend->name);
  return names;
}

std::vector<std::string> backends_runnable() {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates) {
    if (candidate.runs_here()) names.emplace_back(candidate.backend->name);
  }
  return names;
}

const Backend& active_backend() noexcept { return *active().load(std::memory_order_acquire); }

bool select_backend(const std::string& name) noexcept {
  for (const Candidate& candidate : candidates) {
    if (name == candidate.backend->name && candidate.runs_here()) {
      active().store(candidate.backend, std::memory_order_release);
      return true;
    }
  }
  return false;
}

}  // namespace chainrule
