// Ends a long call early. A call of many seconds must not delay Ctrl-C, so work on arrays of any
// size is done in parts. Between parts the calling thread asks whether to continue. Kernels do not
// include this file, because its inline functions would be compiled for their instruction sets.
#pragma once

#include <atomic>
#include <cstdint>

namespace chainrule {

// In its scope, the calling thread calls `stop` between parts of its work, about every 50 ms. After
// stop() has returned true, no part is started: run_tasks runs no task, and keep_going returns
// false on every thread that works for the call. The results are then undefined.
//
// A call that takes less time never calls stop().
class Cancellation {
 public:
  using Stop = bool (*)(void* context) noexcept;

  Cancellation(Stop stop, void* context) noexcept;
  ~Cancellation();
  Cancellation(const Cancellation&) = delete;
  Cancellation& operator=(const Cancellation&) = delete;

  bool cancelled() const noexcept { return cancelled_.load(std::memory_order_relaxed); }
  // See the function in threads.h.
  bool keep_going(int64_t cycles) noexcept {
    if (cancelled()) return false;
    cycles_ += cycles;
    if (cycles_ < cycles_per_look && ++parts_ < parts_per_look) return true;
    return look();
  }

  // Reading the clock takes 20 ns. It is read after this many estimated cycles, or parts.
  static constexpr int64_t cycles_per_look = 100'000;
  static constexpr int parts_per_look = 64;

 private:
  bool look() noexcept;

  // Every thread reads the flag after each task. It must not share a cache line with what the
  // calling thread writes: that cost 1.6 % of a training step of LeNet.
  alignas(64) std::atomic<bool> cancelled_{false};
  alignas(64) const Stop stop_;
  void* const context_;
  Cancellation* const outer_;      // of a call during which a signal handler made this one
  int64_t cycles_ = 0, next_ = 0;  // next_ is the time of the next stop(), 0 before the first look
  int parts_ = 0;
};

// The cancellation of the calling thread's work, or null.
Cancellation* current_cancellation() noexcept;
// True in the thread that constructed current_cancellation().
bool owns_cancellation() noexcept;

// Lets a pool's worker take part in another thread's call in its scope.
class SharedCancellation {
 public:
  explicit SharedCancellation(Cancellation* shared) noexcept;
  ~SharedCancellation();
  SharedCancellation(const SharedCancellation&) = delete;
  SharedCancellation& operator=(const SharedCancellation&) = delete;
};

}  // namespace chainrule
