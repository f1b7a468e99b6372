#include "cpu/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "cpu/float_mode.h"

namespace chainrule {
namespace {

// Below this a wake-up (a few microseconds when the workers sleep) costs more than it brings; below
// the other even workers that watch do.
constexpr int64_t worthwhile_cycles = 30'000, worthwhile_awake = 5'000;
constexpr int64_t soon_nanoseconds = 20'000;
// About 30 microseconds of watching for the next call before a worker sleeps: longer than the
// pause between two operations of a training step, too short to be seen as load.
constexpr int spin_rounds = 1'000;

void pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One call's work. Workers join while the gate is open; the caller closes it and waits for those
// who joined, so a worker that wakes late delays nobody.
class Pool {
 public:
  // A small call has come. Whether it finds workers that watch, or comes so soon after another one
  // that waking them will pay: they then watch for the next.
  bool small_call_pays() noexcept {
    const int64_t stamp = nanoseconds();
    return stamp - last_.exchange(stamp, std::memory_order_relaxed) < soon_nanoseconds;
  }

  bool try_run(int64_t tasks, int workers, Task task, void* context) noexcept {
    std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    const int most = num_threads();
    resize(most - 1);
    if (!shares_) return false;
    task_ = task;
    context_ = context;
    limit_ = std::min(workers, most);
    float_mode_ = float_mode();
    for (int worker = 0; worker < limit_; ++worker) {
      shares_[worker].next.store(first_of(worker, tasks), std::memory_order_relaxed);
      shares_[worker].end = first_of(worker + 1, tasks);
    }
    gate_.store(open, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      const std::lock_guard<std::mutex> wake(sleep_);
      wake_.notify_all();
    }
    work(0);
    gate_.fetch_and(~open, std::memory_order_acq_rel);
    for (int round = 0; gate_.load(std::memory_order_acquire) != 0; ++round) {
      if (round < spin_rounds) pause();
      else sched_yield();
    }
    last_.store(nanoseconds(), std::memory_order_relaxed);
    return true;
  }

 private:
  static constexpr uint32_t open = 1u << 31;

  static int64_t nanoseconds() noexcept {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  }

  // A worker's own tasks: one part of all, the same from call to call, so that what it left in its
  // caches is found there again. An update of 1.2 million parameters takes 120 us so, 148 us where
  // tasks go to whoever comes first; a product of 1024 rows 12.1 and 12.7 ms.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  int64_t first_of(int worker, int64_t tasks) const noexcept {
    const int64_t whole = tasks / limit_, rest = tasks % limit_;
    return worker * whole + std::min<int64_t>(worker, rest);
  }

  // Its own share, then what is left of the others'.
  void work(int worker) noexcept {
    for (int i = 0; i < limit_; ++i) {
      Share& share = shares_[(worker + i) % limit_];
      for (;;) {
        const int64_t index = share.next.fetch_add(1, std::memory_order_relaxed);
        if (index >= share.end) break;
        task_(context_, index, worker);
      }
    }
  }

  bool join() noexcept {
    uint32_t seen = gate_.load(std::memory_order_acquire);
    while (seen & open) {
      if (gate_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void serve(int worker, int spins) noexcept {
    uint32_t seen = 0;
    for (;;) {
      for (int round = 0; epoch_.load(std::memory_order_acquire) == seen; ++round) {
        if (round < spins) {
          pause();
          continue;
        }
        std::unique_lock<std::mutex> lock(sleep_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [&] { return epoch_.load(std::memory_order_seq_cst) != seen; });
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (stop_.load(std::memory_order_acquire)) return;
      if (!join()) continue;
      if (worker < limit_) {
        set_float_mode(float_mode_);
        work(worker);
      }
      gate_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  // Only the holder of busy_ comes here, so no call is under way.
  void resize(int count) noexcept {
    if (count == wanted_) return;
    wanted_ = count;
    stop_.store(true, std::memory_order_release);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    {
      const std::lock_guard<std::mutex> wake(sleep_);
      wake_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    stop_.store(false, std::memory_order_release);
    epoch_.store(0, std::memory_order_release);
    shares_.reset(new (std::nothrow) Share[static_cast<std::size_t>(count) + 1]);
    // Signals belong to the interpreter's threads: a handler on a worker would delay Ctrl-C.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    // With fewer CPUs than threads a spinning worker takes time from one that has work.
    const int spins = count < available_cpus() ? spin_rounds : 0;
    try {
      for (int worker = 1; worker <= count; ++worker) {
        threads_.emplace_back([this, worker, spins] { serve(worker, spins); });
      }
    } catch (...) {
      // The system refused a thread or its memory: those that exist do the work.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  std::mutex busy_;
  std::vector<std::thread> threads_;
  std::unique_ptr<Share[]> shares_;
  int wanted_ = 0;  // of which the system may have refused some
  Task task_ = nullptr;
  void* context_ = nullptr;
  int limit_ = 1;
  uint64_t float_mode_ = 0;       // the caller's: a task computes the same on any thread
  std::atomic<int64_t> last_{0};  // when a small call came, or a call's work ended
  std::atomic<bool> stop_{false};
  std::mutex sleep_;
  std::condition_variable wake_;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<uint32_t> gate_{0};
};

// Never destroyed: at interpreter exit a daemon thread may still be inside a kernel.
std::atomic<Pool*> current_pool{nullptr};
std::atomic<int> threads_wanted{0};
thread_local int most_workers = INT_MAX;

// The child of a fork has none of the pool's threads, and its locks may be held by threads that
// no longer exist. It forgets the pool, and the next call makes a new one.
void forget_pool() noexcept { current_pool.store(nullptr, std::memory_order_release); }

Pool* pool() noexcept {
  Pool* existing = current_pool.load(std::memory_order_acquire);
  if (existing) return existing;
  Pool* created = new (std::nothrow) Pool;
  if (!created) return nullptr;
  if (current_pool.compare_exchange_strong(existing, created, std::memory_order_acq_rel)) {
    return created;
  }
  delete created;
  return existing;
}

// cgroup v2 writes "quota period" or "max period" there, in microseconds.
int cgroup_cpus() noexcept {
  int cpus = 0;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    long long quota = 0, period = 0;
    if (std::fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
      cpus = static_cast<int>(std::clamp<long long>((quota + period - 1) / period, 1, 1 << 20));
    }
    std::fclose(file);
  }
  return cpus;
}

}  // namespace

bool install_fork_handler() noexcept { return pthread_atfork(nullptr, nullptr, forget_pool) == 0; }

int available_cpus() noexcept {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int cpus = 1;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpus = std::max(1, CPU_COUNT(&mask));
  const int quota = cgroup_cpus();
  return quota > 0 ? std::min(cpus, quota) : cpus;
}

int num_threads() noexcept {
  int wanted = threads_wanted.load(std::memory_order_relaxed);
  if (wanted == 0) {
    wanted = available_cpus();
    threads_wanted.store(wanted, std::memory_order_relaxed);
  }
  return wanted;
}

void set_num_threads(int n) noexcept { threads_wanted.store(n, std::memory_order_relaxed); }

ScopedThreadLimit::ScopedThreadLimit(int most) noexcept : before_(most_workers) {
  most_workers = most;
}
ScopedThreadLimit::~ScopedThreadLimit() { most_workers = before_; }

void run_tasks(int64_t tasks, int64_t cycles, int workers, Task task, void* context) noexcept {
  workers = std::min(workers, most_workers);
  if (tasks > 1 && workers > 1 && cycles >= worthwhile_awake) {
    Pool* const shared = pool();
    const bool pays = shared && (cycles >= worthwhile_cycles || shared->small_call_pays());
    if (pays && shared->try_run(tasks, workers, task, context)) return;
  }
  for (int64_t index = 0; index < tasks; ++index) task(context, index, 0);
}

}  // namespace chainrule
