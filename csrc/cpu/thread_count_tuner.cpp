#include "cpu/thread_count_tuner.h"

#include <algorithm>

namespace chainrule {

void ThreadCountTuner::begin(int threads) noexcept {
  threads_ = threads;
  runs_ = 0;
  shortest_ = INT64_MAX;
}

void ThreadCountTuner::record(int64_t nanoseconds) noexcept {
  if (max_threads_ == 1) return;
  const bool in_trial = threads_ != best_;
  ++runs_;
  const int count = in_trial ? trial_runs : pause_;
  // A trial is compared with the last runs before it.
  if (runs_ > count - trial_runs) shortest_ = std::min(shortest_, nanoseconds);
  if (runs_ < count) return;
  if (in_trial) return end_trial();
  shortest_before_trial_ = shortest_;
  if (best_ == (halve_next_ ? 1 : max_threads_)) halve_next_ = !halve_next_;
  const int other = halve_next_ ? best_ / 2 : std::min(best_ * 2, max_threads_);
  begin(shortest_before_trial_ > longest_nanoseconds ? best_ : other);
}

void ThreadCountTuner::end_trial() noexcept {
  // A gain below 5 % may be noise.
  if (shortest_ < shortest_before_trial_ - shortest_before_trial_ / 20) {
    best_ = threads_;
    pause_ = min_pause;
  } else {
    halve_next_ = !halve_next_;
    pause_ = std::min(2 * pause_, max_pause);
  }
  begin(best_);
}

}  // namespace chainrule
