// The number of threads that a replayed program runs on. More threads are not always faster. If two
// CPUs share no cache, a cache line takes 400 ns from one to the other and back. A step of the MLP
// 784-128-10 then takes 286 us on both CPUs and 165 us on one; it takes 113 us on both if they
// share a cache (Zen 5). In a virtual machine this may change by the minute. A program that runs
// many times therefore measures both. The number of threads does not change the bits of the result.
#pragma once

#include <cstdint>

namespace chainrule {

class ThreadCountTuner {
 public:
  // max_threads is at least 1.
  explicit ThreadCountTuner(int max_threads) noexcept
      : max_threads_(max_threads), best_(max_threads), threads_(max_threads) {}

  int max_threads() const noexcept { return max_threads_; }
  // The number of threads for the next run. Pass the duration of that run to record().
  int threads() const noexcept { return threads_; }
  void record(int64_t nanoseconds) noexcept;

 private:
  // Runs in a trial. The shortest counts, because the first one or two find cold caches.
  static constexpr int trial_runs = 6;
  // Runs between two trials. The number doubles after each trial that finds nothing better, so that
  // trials cost less than 1 %.
  static constexpr int min_pause = 64, max_pause = 1024;
  // A longer run has enough work for every thread, and a trial of it would be noticeable.
  static constexpr int64_t longest_nanoseconds = 5'000'000;

  void begin(int threads) noexcept;
  void end_trial() noexcept;

  int max_threads_, best_, threads_;
  bool halve_next_ = true;  // if set, the next trial halves the number of threads, else doubles it
  int pause_ = min_pause, runs_ = 0;
  int64_t shortest_ = INT64_MAX, shortest_before_trial_ = 0;
};

}  // namespace chainrule
