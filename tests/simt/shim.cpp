// Scheduler of the emulation in shim.h. Each CUDA thread is a fiber that runs until it waits, and a
// loop resumes the fibers that are ready. In the orders forward and backward, a warp runs as far as
// the block's barrier before another warp starts. This reveals data that is overwritten too early.
// In the order shuffled, all threads advance one step at a time.
#include "simt/shim.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// A sanitizer error ends the process by a signal, so that Python's faulthandler prints the stack.
extern "C" __attribute__((visibility("default"))) const char* __ubsan_default_options() {
  return "abort_on_error=1";
}

namespace simt {

Index index;
unsigned char* dynamic_shared = nullptr;

namespace {

constexpr int warp_size = 32;
constexpr std::size_t stack_bytes = 256 * 1024, page = 4096;
// Limits of an H100.
constexpr unsigned max_threads = 1024, max_blocks_yz = 65535;
constexpr std::size_t max_dynamic_bytes = 227 * 1024;

enum class State { ready, waiting_for_block, waiting_for_warp, done };

// Stack of one thread of a block, reused from block to block. The first entry uses ucontext, which
// makes a system call per switch. Later switches use longjmp, which makes no system call.
class Fiber {
 public:
  Fiber() {
    void* const memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<char*>(memory);
    mprotect(stack_, page, PROT_NONE);  // guard page: a stack overflow faults here
  }
  ~Fiber() { munmap(stack_, stack_bytes); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Discards a thread that did not finish.
  void abandon() { entered_ = false; }

  // Switches from the scheduler to the fiber, until it calls `leave`.
  void enter(void (*main)());
  void leave();

 private:
  char* stack_;
  bool entered_ = false;
  jmp_buf inside_;
};

struct Thread {
  State state = State::ready;
  const char* function = "";  // intrinsic in which it waits
  Location location;
};

// Values that lanes exchange, double-buffered. A lane that runs ahead writes the other buffer. It
// cannot reach the next use of this buffer before all lanes have read it.
struct Warp {
  unsigned arrived = 0, mask = 0;
  int set = 0;
  LaneValue values[2][warp_size];
};

std::mutex launch_lock;
jmp_buf scheduler;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Thread> threads;
std::vector<Warp> warps;
unsigned current = 0;
const std::function<void()>* kernel_thread = nullptr;
std::string error;

void Fiber::enter(void (*main)()) {
  if (_setjmp(scheduler) != 0) return;
  if (entered_) _longjmp(inside_, 1);
  entered_ = true;
  ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = stack_ + page;
  start.uc_stack.ss_size = stack_bytes - page;
  start.uc_link = nullptr;
  makecontext(&start, main, 0);
  setcontext(&start);
}

void Fiber::leave() {
  if (_setjmp(inside_) == 0) _longjmp(scheduler, 1);
}

void fiber_main() {
  for (;;) {
    (*kernel_thread)();
    threads[current].state = State::done;
    fibers[current]->leave();
  }
}

void leave(State state, const char* function, const Location& location) {
  threads[current].state = state;
  threads[current].function = function;
  threads[current].location = location;
  fibers[current]->leave();
}

std::string to_string(const dim3& at) {
  char text[64];
  std::snprintf(text, sizeof text, "(%u, %u, %u)", at.x, at.y, at.z);
  return text;
}

dim3 thread_at(unsigned number) {
  const dim3& size = index.block_size;
  return dim3(number % size.x, number / size.x % size.y, number / size.x / size.y);
}

std::string to_string(const Location& location) {
  const std::string file = location.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(location.line());
}

bool same_location(const Location& a, const Location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

std::string description(unsigned number) {
  const Thread& thread = threads[number];
  const std::string who = "thread " + to_string(thread_at(number));
  if (thread.state == State::done) return who + " has returned";
  return who + " waits in " + thread.function + " at " + to_string(thread.location);
}

// Stores the error and never resumes the running thread.
[[noreturn]] void fail_thread(const std::string& message) {
  error = message;
  for (;;) fibers[current]->leave();
}

void make_current(unsigned number) {
  current = number;
  index.thread = thread_at(number);
  index.lane = static_cast<int>(number % warp_size);
}

// Returns true if all threads have returned, and false if all wait at the same block barrier.
// Otherwise sets `error`.
bool block_finished() {
  const Thread& first = threads[0];
  // A thread in another state, preferably one that does not wait for its warp.
  unsigned other_thread = 0;
  for (unsigned i = 1; i < threads.size(); ++i) {
    const Thread& other = threads[i];
    const bool same = first.state == other.state &&
                      (first.state == State::done || same_location(first.location, other.location));
    if (!same && (other_thread == 0 || threads[other_thread].state == State::waiting_for_warp))
      other_thread = i;
  }
  if (other_thread > 0 || first.state == State::waiting_for_warp) {
    error = "block " + to_string(index.block) + ": deadlock: " + description(0) +
            (other_thread > 0 ? ", " + description(other_thread) : "");
  }
  return first.state == State::done;
}

class Order {
 public:
  explicit Order(std::size_t count) : order_(count) {
    const char* const value = std::getenv("CHAINRULE_SIMT_ORDER");
    const std::string name = value && *value ? value : "forward";
    std::iota(order_.begin(), order_.end(), 0u);
    if (name == "backward") {
      for (std::size_t i = 0; i < count; ++i) order_[i] = static_cast<unsigned>(count - 1 - i);
    } else if (name == "shuffled") {
      shuffled_ = true;
    } else if (name != "forward") {
      throw std::runtime_error("CHAINRULE_SIMT_ORDER must be forward, backward or shuffled, got " +
                               name);
    }
  }
  // Returns the next order. Shuffled orders differ from block to block, but are the same in every
  // run.
  const std::vector<unsigned>& next_order() {
    if (shuffled_) {
      for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[draw() % i]);
    }
    return order_;
  }
  // Number of threads that run as far as they can before the next ones start.
  std::size_t batch_size() const { return shuffled_ ? order_.size() : warp_size; }

 private:
  std::size_t draw() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>(state_ >> 33);
  }
  std::vector<unsigned> order_;
  bool shuffled_ = false;
  uint64_t state_ = 1;
};

// Resumes each ready thread of the batch once. Returns true if there was one.
bool run_ready(const unsigned* numbers, std::size_t count) {
  bool any = false;
  for (std::size_t i = 0; i < count && error.empty(); ++i) {
    if (threads[numbers[i]].state != State::ready) continue;
    any = true;
    make_current(numbers[i]);
    fibers[numbers[i]]->enter(fiber_main);
  }
  return any;
}

void run_block(Order& order) {
  for (Thread& thread : threads) thread.state = State::ready;
  for (Warp& warp : warps) warp.arrived = 0;
  for (;;) {
    const std::vector<unsigned>& turns = order.next_order();
    bool moved = false;
    for (std::size_t i = 0; i < turns.size(); i += order.batch_size()) {
      const std::size_t count = std::min(order.batch_size(), turns.size() - i);
      while (run_ready(&turns[i], count)) {
        moved = true;
        if (count == turns.size()) break;
      }
    }
    if (!error.empty()) return;
    if (moved) continue;
    if (block_finished() || !error.empty()) return;
    for (Thread& thread : threads) thread.state = State::ready;
  }
}

// Dynamic shared memory of exactly the requested size, uninitialized (filled with 0xff), followed
// by a guard area.
class DynamicShared {
 public:
  explicit DynamicShared(std::size_t bytes) : bytes_(bytes), memory_((bytes + guard + 15) / 16) {
    dynamic_shared = reinterpret_cast<unsigned char*>(memory_.data());
  }
  ~DynamicShared() { dynamic_shared = nullptr; }
  void poison() { std::memset(memory_.data(), 0xff, memory_.size() * 16); }
  bool overrun() const {
    for (std::size_t i = bytes_; i < bytes_ + guard; ++i) {
      if (dynamic_shared[i] != 0xff) return true;
    }
    return false;
  }

 private:
  static constexpr std::size_t guard = 256;
  std::size_t bytes_;
  std::vector<uint4> memory_;
};

void require_valid_launch(const dim3& grid, const dim3& block, std::size_t bytes) {
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  if (count == 0 || count > max_threads || block.z > 64) {
    throw std::runtime_error("a block must have 1 to 1024 threads and at most 64 in z, got " +
                             to_string(block));
  }
  if (grid.x > 0x7fffffffu || grid.y > max_blocks_yz || grid.z > max_blocks_yz) {
    throw std::runtime_error("a grid must have at most 2^31 - 1, 65535 and 65535 blocks, got " +
                             to_string(grid));
  }
  if (bytes > max_dynamic_bytes) {
    throw std::runtime_error("dynamic shared memory must be at most 227 KiB per block, got " +
                             std::to_string(bytes) + " bytes");
  }
}

}  // namespace

void run(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
         const std::function<void()>& thread) {
  require_valid_launch(grid, block, dynamic_shared_bytes);
  const std::lock_guard guard(launch_lock);
  const std::size_t count = std::size_t{block.x} * block.y * block.z;
  while (fibers.size() < count) fibers.push_back(std::make_unique<Fiber>());
  threads.assign(count, {});
  warps.resize((count + warp_size - 1) / warp_size);
  index.block_size = block;
  index.grid_size = grid;
  kernel_thread = &thread;
  error.clear();
  DynamicShared shared(dynamic_shared_bytes);
  Order blocks(std::size_t{grid.x} * grid.y * grid.z), order(count);
  for (const unsigned number : blocks.next_order()) {
    index.block = dim3(number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y);
    shared.poison();
    run_block(order);
    if (error.empty() && shared.overrun()) {
      error = "block " + to_string(index.block) + " wrote past its dynamic shared memory";
    }
    if (!error.empty()) {
      for (std::size_t i = 0; i < count; ++i) fibers[i]->abandon();
      throw std::runtime_error("kernel: " + error);
    }
  }
}

void wait_for_block(const char* function, const Location& location) {
  leave(State::waiting_for_block, function, location);
}

const LaneValue* exchange(const char* function, unsigned mask, const LaneValue& own_value,
                          const Location& location) {
  const unsigned first = current / warp_size * warp_size;
  const unsigned bit = 1u << index.lane;
  Warp& warp = warps[current / warp_size];
  const auto fail_exchange = [&](const std::string& why) {
    fail_thread(std::string(function) + " at " + to_string(location) + ": " + why);
  };
  if (!(mask & bit)) fail_exchange("mask must include the calling lane");
  // A last, partial warp does not wait for its missing lanes.
  const std::size_t present = threads.size() - first;
  const unsigned expected = present < warp_size ? mask & ((1u << present) - 1) : mask;
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.set ^= 1;
  } else if (warp.mask != mask) {
    fail_exchange("mask must be the same in all lanes of a warp");
  }
  const LaneValue* const result = warp.values[warp.set];
  warp.values[warp.set][index.lane] = own_value;
  warp.arrived |= bit;
  if (warp.arrived != expected) {
    leave(State::waiting_for_warp, function, location);
    return result;
  }
  warp.arrived = 0;
  for (unsigned i = first; i < first + present && i < first + warp_size; ++i) {
    Thread& other = threads[i];
    if (i == current || !(expected & (1u << (i - first)))) continue;
    if (!same_location(other.location, location))
      fail_exchange("all lanes of the mask must call it, got " + description(i));
    other.state = State::ready;
  }
  return result;
}

void require_lane(const char* function, unsigned mask, int lane, const Location& location) {
  const std::size_t number = current / warp_size * warp_size + static_cast<unsigned>(lane);
  if (lane < 0 || lane >= warp_size || number >= threads.size() || !(mask & (1u << lane))) {
    fail_thread(std::string(function) + " at " + to_string(location) +
                ": source lane must be in the mask, got lane " + std::to_string(lane));
  }
}

unsigned ballot(const char* function, unsigned mask, bool predicate, const Location& location) {
  LaneValue value{};
  value.bytes[0] = predicate;
  const LaneValue* const all = exchange(function, mask, value, location);
  const unsigned first = current / warp_size * warp_size;
  unsigned votes = 0;
  for (unsigned i = 0; i < warp_size && first + i < threads.size(); ++i) {
    if ((mask & (1u << i)) && all[i].bytes[0]) votes |= 1u << i;
  }
  return votes;
}

}  // namespace simt
