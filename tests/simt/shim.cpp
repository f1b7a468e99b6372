// The fibers under shim.h: threads that run until they wait, and a loop that wakes them. Forward
// and backward a warp goes as far as it can, to the block's barrier, before another begins, so that
// what one overwrites too early is seen; shuffled, all threads go one step at a time.
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

// What the sanitizer finds ends the process by a signal, so that Python's fault handler says where.
extern "C" __attribute__((visibility("default"))) const char* __ubsan_default_options() {
  return "abort_on_error=1";
}

namespace simt {

Index index;
unsigned char* dynamic_shared = nullptr;

namespace {

constexpr int warp_size = 32;
constexpr std::size_t stack_bytes = 256 * 1024, page = 4096;
// What an H100 grants.
constexpr unsigned most_threads = 1024, most_blocks_aside = 65535;
constexpr std::size_t most_dynamic_bytes = 227 * 1024;

enum class State { ready, at_block, at_warp, done };

// A stack that a thread of a block runs on, one block after another. The first time it is entered
// through ucontext, which asks the kernel for each switch; after that by longjmp, which does not.
class Fiber {
 public:
  Fiber() {
    void* const memory = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<char*>(memory);
    mprotect(stack_, page, PROT_NONE);  // an overflow ends here
  }
  ~Fiber() { munmap(stack_, stack_bytes); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // What was left on the stack in the middle is given up.
  void abandon() { entered_ = false; }

  // From the loop into the fiber, until it calls `leave`.
  void enter(void (*main)());
  void leave();

 private:
  char* stack_;
  bool entered_ = false;
  jmp_buf inside_;
};

struct Thread {
  State state = State::ready;
  const char* what = "";  // it waits for, and where
  Where where;
};

// Values that lanes exchange. Two sets: a lane that runs ahead writes to the other one, and cannot
// come to the third before all have read the first.
struct Warp {
  unsigned arrived = 0, mask = 0;
  int set = 0;
  Slot slots[2][warp_size];
};

std::mutex one_at_a_time;
jmp_buf loop;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Thread> threads;
std::vector<Warp> warps;
unsigned current = 0;
const std::function<void()>* body = nullptr;
std::string failure;

void Fiber::enter(void (*main)()) {
  if (_setjmp(loop) != 0) return;
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
  if (_setjmp(inside_) == 0) _longjmp(loop, 1);
}

void fiber_main() {
  for (;;) {
    (*body)();
    threads[current].state = State::done;
    fibers[current]->leave();
  }
}

void leave_as(State state, const char* what, const Where& where) {
  threads[current].state = state;
  threads[current].what = what;
  threads[current].where = where;
  fibers[current]->leave();
}

std::string name_of(const dim3& at) {
  char text[64];
  std::snprintf(text, sizeof text, "(%u, %u, %u)", at.x, at.y, at.z);
  return text;
}

dim3 thread_at(unsigned number) {
  const dim3& size = index.block_size;
  return dim3(number % size.x, number / size.x % size.y, number / size.x / size.y);
}

std::string place_of(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

std::string description(unsigned number) {
  const Thread& thread = threads[number];
  const std::string who = "thread " + name_of(thread_at(number));
  if (thread.state == State::done) return who + " has returned";
  return who + " waits in " + thread.what + " at " + place_of(thread.where);
}

// The running thread did what a GPU's could not: it never goes on.
[[noreturn]] void fail(const std::string& what) {
  failure = what;
  for (;;) fibers[current]->leave();
}

void make_current(unsigned number) {
  current = number;
  index.thread = thread_at(number);
  index.lane = static_cast<int>(number % warp_size);
}

// Every thread waits for the block at the same place, or all have returned, or `failure` says what
// is the matter. True where the block is done.
bool settled() {
  const Thread& first = threads[0];
  unsigned odd = 0;  // a thread that is elsewhere; of those, one that does not wait for a warp
  for (unsigned i = 1; i < threads.size(); ++i) {
    const Thread& other = threads[i];
    const bool together = first.state == other.state &&
                          (first.state == State::done || same_place(first.where, other.where));
    if (!together && (odd == 0 || threads[odd].state == State::at_warp)) odd = i;
  }
  if (odd > 0 || first.state == State::at_warp) {
    failure = "threads of block " + name_of(index.block) +
              " wait for each other in vain: " + description(0) +
              (odd > 0 ? ", " + description(odd) : "");
  }
  return first.state == State::done;
}

class Order {
 public:
  explicit Order(std::size_t count) : order_(count) {
    const char* const wanted = std::getenv("CHAINRULE_SIMT_ORDER");
    const std::string name = wanted && *wanted ? wanted : "forward";
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
  // Anew each time where it is shuffled, but the same from run to run.
  const std::vector<unsigned>& next() {
    if (shuffled_) {
      for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[draw() % i]);
    }
    return order_;
  }
  // So many go as far as they can before the next ones begin; shuffled, all go one step.
  std::size_t together() const { return shuffled_ ? order_.size() : warp_size; }

 private:
  std::size_t draw() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>(state_ >> 33);
  }
  std::vector<unsigned> order_;
  bool shuffled_ = false;
  uint64_t state_ = 1;
};

// Once each of `count` threads that are ready; whether any was.
bool run_ready(const unsigned* numbers, std::size_t count) {
  bool any = false;
  for (std::size_t i = 0; i < count && failure.empty(); ++i) {
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
    const std::vector<unsigned>& turns = order.next();
    bool moved = false;
    for (std::size_t i = 0; i < turns.size(); i += order.together()) {
      const std::size_t count = std::min(order.together(), turns.size() - i);
      while (run_ready(&turns[i], count)) {
        moved = true;
        if (count == turns.size()) break;
      }
    }
    if (!failure.empty()) return;
    if (moved) continue;
    if (settled() || !failure.empty()) return;
    for (Thread& thread : threads) thread.state = State::ready;
  }
}

// Dynamic shared memory of exactly the size asked for, unset, and what lies behind it.
class Shared {
 public:
  explicit Shared(std::size_t bytes) : bytes_(bytes), memory_((bytes + guard + 15) / 16) {
    dynamic_shared = reinterpret_cast<unsigned char*>(memory_.data());
  }
  ~Shared() { dynamic_shared = nullptr; }
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

void require_possible(const dim3& grid, const dim3& block, std::size_t bytes) {
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  if (count == 0 || count > most_threads || block.z > 64) {
    throw std::runtime_error("a block has 1 to 1024 threads, 64 in z, got " + name_of(block));
  }
  if (grid.x > 0x7fffffffu || grid.y > most_blocks_aside || grid.z > most_blocks_aside) {
    throw std::runtime_error("a grid has at most 2^31 - 1, 65535, 65535 blocks, got " +
                             name_of(grid));
  }
  if (bytes > most_dynamic_bytes) {
    throw std::runtime_error("a block has at most 227 KiB of shared memory, got " +
                             std::to_string(bytes) + " bytes");
  }
}

}  // namespace

void run(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
         const std::function<void()>& thread) {
  require_possible(grid, block, dynamic_shared_bytes);
  const std::lock_guard guard(one_at_a_time);
  const std::size_t count = std::size_t{block.x} * block.y * block.z;
  while (fibers.size() < count) fibers.push_back(std::make_unique<Fiber>());
  threads.assign(count, {});
  warps.resize((count + warp_size - 1) / warp_size);
  index.block_size = block;
  index.grid_size = grid;
  body = &thread;
  failure.clear();
  Shared shared(dynamic_shared_bytes);
  Order blocks(std::size_t{grid.x} * grid.y * grid.z), turns(count);
  for (const unsigned number : blocks.next()) {
    index.block = dim3(number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y);
    shared.poison();
    run_block(turns);
    if (failure.empty() && shared.overrun()) {
      failure = "block " + name_of(index.block) + " wrote past its dynamic shared memory";
    }
    if (!failure.empty()) {
      for (std::size_t i = 0; i < count; ++i) fibers[i]->abandon();
      throw std::runtime_error("kernel: " + failure);
    }
  }
}

void wait_for_block(const char* what, const Where& where) {
  leave_as(State::at_block, what, where);
}

const Slot* exchange(const char* what, unsigned mask, const Slot& own, const Where& where) {
  const unsigned first = current / warp_size * warp_size;
  const unsigned bit = 1u << index.lane;
  Warp& warp = warps[current / warp_size];
  const auto refuse = [&](const std::string& why) {
    fail(std::string(what) + " at " + place_of(where) + ": " + why);
  };
  if (!(mask & bit)) refuse("its mask does not name the lane that calls it");
  // Lanes that a last, smaller warp lacks are not waited for.
  const std::size_t there = threads.size() - first;
  const unsigned wanted = there < warp_size ? mask & ((1u << there) - 1) : mask;
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.set ^= 1;
  } else if (warp.mask != mask) {
    refuse("lanes of one warp call it with different masks");
  }
  const Slot* const result = warp.slots[warp.set];
  warp.slots[warp.set][index.lane] = own;
  warp.arrived |= bit;
  if (warp.arrived != wanted) {
    leave_as(State::at_warp, what, where);
    return result;
  }
  warp.arrived = 0;
  for (unsigned i = first; i < first + there && i < first + warp_size; ++i) {
    Thread& other = threads[i];
    if (i == current || !(wanted & (1u << (i - first)))) continue;
    if (!same_place(other.where, where)) refuse("but " + description(i));
    other.state = State::ready;
  }
  return result;
}

void require_lane(const char* what, unsigned mask, int lane, const Where& where) {
  const std::size_t number = current / warp_size * warp_size + static_cast<unsigned>(lane);
  if (lane < 0 || lane >= warp_size || number >= threads.size() || !(mask & (1u << lane))) {
    fail(std::string(what) + " at " + place_of(where) + ": reads from lane " +
         std::to_string(lane) + ", which takes no part");
  }
}

unsigned ballot(const char* what, unsigned mask, bool predicate, const Where& where) {
  Slot slot{};
  slot.bytes[0] = predicate;
  const Slot* const all = exchange(what, mask, slot, where);
  const unsigned first = current / warp_size * warp_size;
  unsigned votes = 0;
  for (unsigned i = 0; i < warp_size && first + i < threads.size(); ++i) {
    if ((mask & (1u << i)) && all[i].bytes[0]) votes |= 1u << i;
  }
  return votes;
}

}  // namespace simt
