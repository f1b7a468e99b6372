// The library's own thread pool. OpenMP is not used, because its runtime hangs after fork and
// conflicts with the copies that other packages load.
#pragma once

#include <cstdint>

namespace chainrule {

// Calls task(context, index, worker) once for every index in [0, tasks), on at most `workers`
// threads, and returns when all calls are done. Concurrent calls have different numbers `worker`,
// which are below `workers`. The caller is worker 0. `cycles` is a rough estimate of the work on
// one core. If the pool is busy, or if the work is too short to wake a worker, the caller runs all
// tasks. The result of a task must therefore not depend on its worker. If the call is cancelled,
// the remaining tasks are left out.
using Task = void (*)(void* context, int64_t index, int worker);
void run_tasks(int64_t tasks, int64_t cycles, int workers, Task task, void* context) noexcept;

// Returns false if the rest of the work is not needed, see cancellation.h. run_tasks calls it
// between tasks. A task of unbounded length must call it, too, after every part of 10 microseconds
// to 10 milliseconds. `cycles` is a rough estimate of the part's work.
bool keep_going(int64_t cycles) noexcept;

// Makes a forked child start with a new pool. Call it once, before another thread can fork or run
// tasks. Returns false if memory is exhausted.
bool install_fork_handler() noexcept;

// Limits the calling thread's calls of run_tasks to `max_threads` threads in its scope.
class ScopedThreadLimit {
 public:
  explicit ScopedThreadLimit(int max_threads) noexcept;
  ~ScopedThreadLimit();
  ScopedThreadLimit(const ScopedThreadLimit&) = delete;
  ScopedThreadLimit& operator=(const ScopedThreadLimit&) = delete;

 private:
  int before_;
};

int num_threads() noexcept;
// n must be at least 1. It takes effect with the next call of run_tasks.
void set_num_threads(int n) noexcept;

}  // namespace chainrule
