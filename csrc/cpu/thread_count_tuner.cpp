#include "cpu/thread_count_tuner.h"

#include <algorithm>

namespace chainrule {

void Pace::begin(int threads) noexcept {
  threads_ = threads;
  runs_ = 0;
  shortest_ = INT64_MAX;
}

void Pace::took(int64_t nanoseconds) noexcept {
  if (most_ == 1) return;
  const bool trying = threads_ != best_;
  ++runs_;
  const int count = trying ? trial : pause_;
  // Of the runs before a trial only the last ones are compared with it.
  if (runs_ > count - trial) shortest_ = std::min(shortest_, nanoseconds);
  if (runs_ < count) return;
  if (trying) return decide();
  to_beat_ = shortest_;
  if (best_ == (halves_ ? 1 : most_)) halves_ = !halves_;
  const int other = halves_ ? best_ / 2 : std::min(best_ * 2, most_);
  begin(to_beat_ > longest ? best_ : other);
}

void Pace::decide() noexcept {
  // By a twentieth: less may be chance.
  if (shortest_ < to_beat_ - to_beat_ / 20) {
    best_ = threads_;
    pause_ = soon;
  } else {
    halves_ = !halves_;
    pause_ = std::min(2 * pause_, late);
  }
  begin(best_);
}

}  // namespace chainrule
