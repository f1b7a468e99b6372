#include "cpu/cancellation.h"

#include <chrono>

#include "cpu/threads.h"

namespace chainrule {
namespace {

constexpr int64_t interval_nanoseconds = 50'000'000;

thread_local Cancellation* current = nullptr;
thread_local bool owned = false;

int64_t nanoseconds() noexcept {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace

Cancellation::Cancellation(Stop stop, void* context) noexcept
    : stop_(stop), context_(context), outer_(current) {
  current = this;
  owned = true;
}

Cancellation::~Cancellation() {
  current = outer_;
  owned = outer_ != nullptr;
}

bool Cancellation::look() noexcept {
  cycles_ = 0;
  parts_ = 0;
  const int64_t now = nanoseconds();
  if (next_ == 0) {
    next_ = now + interval_nanoseconds;
    return true;
  }
  if (now < next_) return true;
  if (stop_(context_)) cancelled_.store(true, std::memory_order_relaxed);
  next_ = nanoseconds() + interval_nanoseconds;
  return !cancelled();
}

bool keep_going(int64_t cycles) noexcept {
  if (!current) return true;
  return owned ? current->keep_going(cycles) : !current->cancelled();
}

Cancellation* current_cancellation() noexcept { return current; }
bool owns_cancellation() noexcept { return owned; }

SharedCancellation::SharedCancellation(Cancellation* shared) noexcept { current = shared; }
SharedCancellation::~SharedCancellation() { current = nullptr; }

}  // namespace chainrule
