// How many threads a program runs on. More are not always faster: where two CPUs share no cache, a
// line takes 400 ns from one to the other and back, and a step of the MLP 784-128-10 takes 286 us
// on both, 165 on one (113 on both where they share one; Zen 5). Which case it is may change by the
// minute in a virtual machine, so a program that runs again and again finds out by trying. The bits
// are the same on any number of threads.
#pragma once

#include <cstdint>

namespace chainrule {

class Pace {
 public:
  // At most `most` threads, at least 1.
  explicit Pace(int most) noexcept : most_(most), best_(most), threads_(most) {}

  int most() const noexcept { return most_; }
  // For the next run, which then `took` so long.
  int threads() const noexcept { return threads_; }
  void took(int64_t nanoseconds) noexcept;

 private:
  // A trial is its shortest run: the first one or two find cold caches.
  static constexpr int trial = 6;
  // Runs between two trials: more after each that was in vain, so that trials cost less than 1 %.
  static constexpr int soon = 64, late = 1024;
  // A longer run has work enough for every thread, and a trial of it would be felt.
  static constexpr int64_t longest = 5'000'000;

  void begin(int threads) noexcept;
  void decide() noexcept;

  int most_, best_, threads_;
  bool halves_ = true;  // what the next trial does to the number of threads; else it doubles it
  int pause_ = soon, runs_ = 0;
  int64_t shortest_ = INT64_MAX, to_beat_ = 0;
};

}  // namespace chainrule
