// Stress test of the thread pool, of replays and of the thread-count tuner, without Python, for
// ThreadSanitizer and LeakSanitizer: `driver ROUNDS`. Several threads compute at the same time
// while another one changes the number of threads. A wrong result ends the process with code 1.
// .ci/sanitize compiles it with the kernels of one instruction set.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/ops.h"
#include "cpu/cancellation.h"
#include "cpu/max_value.h"
#include "cpu/replay.h"
#include "cpu/thread_count_tuner.h"
#include "cpu/threads.h"

namespace chainrule::CR_DRIVER_ISA {
extern const Backend backend;
}

namespace {

using namespace chainrule;

constexpr int callers = 3, max_threads = 5;

std::atomic<int64_t> calls{0};

void require(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "driver: %s\n", what);
  std::_Exit(1);
}

// Calls work(slot) on `callers` threads, and meanwhile changes the number of threads.
template <class F>
void at_once(F work) {
  std::atomic<bool> stop{false};
  std::thread changes([&] {
    for (int threads = 1; !stop.load(); threads = threads % max_threads + 1) {
      set_num_threads(threads);
      std::this_thread::sleep_for(std::chrono::microseconds(700));
    }
  });
  std::vector<std::thread> threads;
  for (int slot = 0; slot < callers; ++slot) threads.emplace_back([=] { work(slot); });
  for (std::thread& thread : threads) thread.join();
  stop.store(true);
  changes.join();
}

// The pool alone

// Plain integers: if two workers shared an element, ThreadSanitizer would report it.
struct Visits {
  std::vector<int> of_task;
  int by_worker[max_threads + 3] = {};
  int workers;
};

void visit(void* context, int64_t index, int worker) {
  Visits& visits = *static_cast<Visits*>(context);
  require(worker >= 0 && worker < visits.workers, "a worker's number is out of range");
  ++visits.of_task[static_cast<std::size_t>(index)];
  ++visits.by_worker[worker];
}

void visit_and_nest(void* context, int64_t index, int worker) {
  Visits inner{std::vector<int>(3), {}, 2};
  run_tasks(3, 100'000, 2, visit, &inner);
  visit(context, index, worker);
}

void check_pool(int rounds) {
  at_once([=](int slot) {
    std::mt19937 random(static_cast<unsigned>(slot));
    for (int round = 0; round < rounds; ++round) {
      const int64_t tasks = random() % 40;
      const int64_t cycles = round % 3 == 0 ? 6'000 : round % 3 == 1 ? 40'000 : 100;
      Visits visits{std::vector<int>(static_cast<std::size_t>(tasks)), {}, 0};
      visits.workers = static_cast<int>(1 + random() % (max_threads + 2));
      const ScopedThreadLimit limit(static_cast<int>(1 + random() % max_threads));
      run_tasks(tasks, cycles, visits.workers, round % 8 == 0 ? visit_and_nest : visit, &visits);
      int64_t total = 0;
      for (const int count : visits.of_task) require(count == 1, "a task did not run once");
      for (const int count : visits.by_worker) total += count;
      require(total == tasks, "the workers ran another number of tasks");
      ++calls;
    }
  });
}

// A call that is ended early, on several threads at once

bool always(void*) noexcept { return true; }
bool never(void*) noexcept { return false; }

void wait_and_count(void* context, int64_t, int) {
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ++*static_cast<std::atomic<int64_t>*>(context);
}

void check_cancellation(int rounds) {
  at_once([=](int) {
    for (int round = 0; round < rounds; ++round) {
      constexpr int64_t tasks = 1'000;
      std::atomic<int64_t> done{0};
      {
        const Cancellation cancellation(always, nullptr);
        run_tasks(tasks, int64_t{1} << 40, max_threads, wait_and_count, &done);
        require(cancellation.cancelled() && !keep_going(0), "the call was not ended");
      }
      require(done > 0 && done < tasks, "the call did not end early");
      require(keep_going(0), "the end of one call ended the next");
      ++calls;
    }
  });
}

// Recorded kernels

// The arrays of one sequence of kernel calls, and the calls.
template <class T>
class Recording {
 public:
  explicit Recording(unsigned seed) : random_(seed) { record(); }
  Recording(const Recording&) = delete;

  const std::vector<RecordedStep>& steps() const { return steps_; }
  std::size_t workspace_bytes() const { return static_cast<std::size_t>(bytes_); }

  // The bits of all arrays.
  std::string bits() const {
    std::string all;
    for (const auto& array : arrays_) {
      all.append(reinterpret_cast<const char*>(array->data()), array->size() * sizeof(T));
    }
    all.append(reinterpret_cast<const char*>(argmax_.data()), argmax_.size() * sizeof(uint16_t));
    return all;
  }
  void restore(const std::string& bits) {
    std::size_t from = 0;
    for (const auto& array : arrays_) {
      std::memcpy(array->data(), bits.data() + from, array->size() * sizeof(T));
      from += array->size() * sizeof(T);
    }
    std::memcpy(argmax_.data(), bits.data() + from, argmax_.size() * sizeof(uint16_t));
  }

 private:
  T* normal(int64_t size) {
    std::normal_distribution<T> distribution;
    arrays_.push_back(std::make_unique<std::vector<T>>(static_cast<std::size_t>(size)));
    for (T& value : *arrays_.back()) value = distribution(random_);
    return arrays_.back()->data();
  }

  // The number of workers is larger than any that set_num_threads is called with.
  template <class F>
  void add(int64_t bytes, F step) {
    bytes_ = std::max(bytes_, bytes);
    steps_.push_back({step, max_threads});
  }

  void record();

  static constexpr const Ops<T>& ops() {
    if constexpr (sizeof(T) == 4) return CR_DRIVER_ISA::backend.f32;
    else return CR_DRIVER_ISA::backend.f64;
  }

  std::mt19937 random_;
  std::vector<std::unique_ptr<std::vector<T>>> arrays_;
  std::vector<uint16_t> argmax_;
  std::vector<int64_t> labels_;
  std::vector<RecordedStep> steps_;
  int64_t bytes_ = 0;
};

template <class T>
void Recording<T>::record() {
  constexpr int w = max_threads;
  // A pooled convolution of small images, as in the first layers of a network.
  const Conv2d conv{4, 14, 14, 8, 16, {3, 3, 1, 1}, 0, 0, 12, 12};
  const MaxPool2d pool{4, 12, 12, 16, {2, 2, 2, 2}, 6, 6};
  const int64_t inputs = 4 * 14 * 14 * 8, pixels = 4 * 12 * 12 * 16, pooled = 4 * 6 * 6 * 16;
  T* const x = normal(inputs);
  T* const filters = normal(16 * 3 * 3 * 8);
  T* const bias = normal(16);
  T* const z = normal(pixels);
  T* const y = normal(pooled);
  T* const dx = normal(inputs);
  T* const dfilters = normal(16 * 3 * 3 * 8);
  T* const dbias = normal(16);
  argmax_.resize(static_cast<std::size_t>(pooled));
  uint16_t* const argmax = argmax_.data();
  add(ops().conv2d_workspace(conv, w), [=](const Workspace& workspace) {
    ops().conv2d(x, filters, bias, z, true, conv, workspace);
  });
  add(0, [=](const Workspace&) { ops().max_pool2d(z, y, argmax, pool); });
  add(ops().conv2d_pooled_workspace(conv, pool, w), [=](const Workspace& workspace) {
    ops().conv2d_pooled(x, filters, bias, y, argmax, true, conv, pool, workspace);
    require(max_value(argmax, pooled) <= 3, "argmax is outside its window");
  });
  add(ops().conv2d_pooled_backward_input_workspace(conv, pool, w), [=](const Workspace& workspace) {
    ops().conv2d_pooled_backward_input(y, argmax, filters, dx, conv, pool, workspace);
  });
  add(ops().conv2d_pooled_backward_weight_workspace(conv, pool, w),
      [=](const Workspace& workspace) {
        ops().conv2d_pooled_backward_weight(y, argmax, x, dfilters, dbias, conv, pool, workspace);
      });
  add(0, [=](const Workspace&) { ops().max_pool2d_backward(y, argmax, z, pool); });
  add(ops().conv2d_backward_input_workspace(conv, w), [=](const Workspace& workspace) {
    ops().conv2d_backward_input(z, filters, dx, conv, workspace);
  });
  add(ops().conv2d_backward_weight_workspace(conv, w), [=](const Workspace& workspace) {
    ops().conv2d_backward_weight(z, x, dfilters, dbias, conv, workspace);
  });
  add(0, [=](const Workspace&) {
    ops().sgd(filters, dfilters, nullptr,
              Sgd{.size = 16 * 3 * 3 * 8,
                  .learning_rate = 1e-6,
                  .momentum = 0,
                  .l2 = 0,
                  .nesterov = false});
  });
  T* const first_moment = normal(16 * 3 * 3 * 8);
  T* const second_moment = normal(16 * 3 * 3 * 8);
  std::fill_n(second_moment, 16 * 3 * 3 * 8, T(1));
  add(0, [=](const Workspace&) {
    ops().adam(filters, dfilters, first_moment, second_moment,
               Adam{.size = 16 * 3 * 3 * 8,
                    .step = 1,
                    .learning_rate = 1e-6,
                    .beta1 = 0.9,
                    .beta2 = 0.999,
                    .eps = 1e-8,
                    .l2 = 0,
                    .weight_decay = 0});
  });

  // Dense layers, one of which is a long sum that is split, and a loss.
  const Linear dense{24, 576, 96}, deep{3, 2100, 20};
  T* const hidden = normal(24 * 96);
  T* const weight = normal(96 * 576);
  T* const dweight = normal(96 * 576);
  T* const units = normal(96);
  T* const flat = normal(24 * 576);
  T* const soft = normal(24 * 96);
  T* const losses = normal(24);
  add(ops().linear_workspace(dense, w), [=](const Workspace& workspace) {
    ops().linear(flat, weight, units, hidden, true, dense, workspace);
  });
  labels_.assign(24, 5);
  add(0, [=, labels = labels_.data()](const Workspace&) {
    ops().softmax_cross_entropy(hidden, labels, nullptr, losses, soft, 24, Rows{24, 96});
  });
  add(ops().linear_backward_workspace(dense, w), [=](const Workspace& workspace) {
    ops().linear_backward(soft, flat, weight, nullptr, dweight, units, dense, workspace);
  });
  T* const long_rows = normal(3 * 2100);
  T* const long_weight = normal(20 * 2100);
  T* const sums = normal(3 * 20);
  add(ops().linear_workspace(deep, w), [=](const Workspace& workspace) {
    ops().linear(long_rows, long_weight, nullptr, sums, false, deep, workspace);
  });
  T* const many = normal(40'000);
  add(0, [=](const Workspace&) {
    ops().dropout(
        many, many,
        Dropout{.size = 40'000, .seed = 3, .offset = 1, .threshold = 1u << 30, .scale = 1.25});
    ops().relu(many, many, 40'000);
  });
}

// Runs the recordings of all callers at once. The bits must be those of one thread.
template <class T>
void check_replays(int rounds) {
  std::vector<std::string> want(callers), before(callers);
  set_num_threads(1);
  for (unsigned slot = 0; slot < callers; ++slot) {
    Recording<T> recording(slot);
    before[slot] = recording.bits();
    CpuReplay(recording.steps(), recording.workspace_bytes()).run();
    want[slot] = recording.bits();
    require(want[slot] != before[slot], "the steps changed nothing");
  }
  at_once([&](int slot) {
    const std::size_t own = static_cast<std::size_t>(slot);
    Recording<T> recording(static_cast<unsigned>(slot));
    CpuReplay replay(recording.steps(), recording.workspace_bytes());
    const Cancellation cancellation(never, nullptr);
    for (int round = 0; round < rounds; ++round) {
      recording.restore(before[own]);
      replay.run();
      require(recording.bits() == want[own], "other bits");
      calls += static_cast<int64_t>(recording.steps().size());
    }
  });
}

// The tuner, far beyond its pauses: a number of threads always has a duration.

void check_tuner(int rounds) {
  at_once([=](int slot) {
    ThreadCountTuner tuner(slot + 1);
    for (int run = 0; run < 100 * rounds; ++run) {
      const int threads = tuner.threads();
      require(threads >= 1 && threads <= slot + 1, "the tuner chose a number out of range");
      tuner.record(1000 + (run / 500 % 2 == 0 ? 100 * threads : -100 * threads));
    }
  });
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 100;
  require(rounds > 0, "ROUNDS must be at least 1");
  require(install_fork_handler(), "no memory");
  check_pool(20 * rounds);
  check_cancellation((rounds + 19) / 20);
  const int64_t pool_calls = calls.exchange(0);
  check_replays<float>(rounds);
  check_replays<double>((rounds + 3) / 4);
  check_tuner(rounds);
  std::printf("%lld calls of the pool, %lld recorded kernels, %s\n",
              static_cast<long long>(pool_calls), static_cast<long long>(calls.load()),
              CR_DRIVER_ISA::backend.name);
}
