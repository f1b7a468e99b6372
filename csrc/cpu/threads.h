// The library's own thread pool: no OpenMP, whose runtime hangs after fork and clashes with the
// copy that other packages bring along.
#pragma once

#include <cstdint>

namespace chainrule {

// Calls task(context, index, worker) once for every index in [0, tasks), on at most `workers`
// threads, and returns when all are done. worker < workers tells the calls that run at the same
// time apart. The caller is worker 0. A call that finds the pool busy, or whose `cycles` of work
// (a rough estimate for one core) are not worth a wake-up, runs all tasks itself. So nothing a
// task computes may depend on which worker runs it.
using Task = void (*)(void* context, int64_t index, int worker);
void run_tasks(int64_t tasks, int64_t cycles, int workers, Task task, void* context) noexcept;

// To be called once, before any other thread can fork or run tasks. False if memory is out.
bool install_fork_handler() noexcept;

// Keeps the calling thread's calls to so many workers while it lives.
class ScopedThreadLimit {
 public:
  explicit ScopedThreadLimit(int most) noexcept;
  ~ScopedThreadLimit();
  ScopedThreadLimit(const ScopedThreadLimit&) = delete;
  ScopedThreadLimit& operator=(const ScopedThreadLimit&) = delete;

 private:
  int before_;
};

int num_threads() noexcept;
// n is at least 1; takes effect with the next call.
void set_num_threads(int n) noexcept;
// CPUs that this process may use: its affinity mask and its cgroup's quota.
int available_cpus() noexcept;

}  // namespace chainrule
