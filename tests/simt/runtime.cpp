// The runtime over the CPU's memory: a GPU that can be had everywhere. Launches run at once, unless
// a graph is captured; all streams are one.
#include "cuda/runtime.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

#include "cuda/launch.h"

namespace chainrule::cuda {

extern const Backend backend;
extern const Training steps;

namespace {

constexpr int64_t total_bytes = int64_t{1} << 30;

std::mutex lock;
std::unordered_map<void*, int64_t>& blocks() {
  static auto& only = *new std::unordered_map<void*, int64_t>();
  return only;
}
int64_t used = 0;
int fault_cell = 0;

class Launches final : public Graph {
 public:
  explicit Launches(std::vector<std::function<void()>> launches) : launches_(std::move(launches)) {}
  void launch(Stream) override {
    for (const auto& run : launches_) run();
  }

 private:
  std::vector<std::function<void()>> launches_;
};

}  // namespace

int* faults() { return &fault_cell; }
const Backend& kernels() { return backend; }
const Training& training() { return steps; }

const std::string& why_off() {
  static const std::string on;
  return on;
}
const std::string& description() {
  static const std::string text = "fibers on the CPU, 1024 MiB";
  return text;
}

Stream current_stream() {
  thread_local char own = 0;
  return reinterpret_cast<Stream>(&own);
}
Stream default_stream() { return nullptr; }

void* allocate(int64_t bytes, Stream) {
  if (bytes == 0) return nullptr;
  const std::lock_guard guard(lock);
  if (bytes > total_bytes - used) {
    throw OutOfMemory("cuda: " + std::to_string(bytes >> 20) + " MiB do not fit: " +
                      std::to_string((total_bytes - used) >> 20) + " of 1024 MiB are free");
  }
  const std::size_t whole = (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
  void* const found = std::aligned_alloc(256, whole);
  if (!found) throw std::bad_alloc();
  std::memset(found, 0xFF, whole);  // NaN, so that nothing passes for having been written
  blocks()[found] = bytes;
  used += bytes;
  return found;
}

void release(void* memory, Stream) noexcept {
  if (!memory) return;
  const std::lock_guard guard(lock);
  used -= blocks()[memory];
  blocks().erase(memory);
  std::free(memory);
}

Memory memory() {
  const std::lock_guard guard(lock);
  return {total_bytes - used, total_bytes};
}

void copy_in(void* to, const void* from, int64_t bytes, Stream) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}
void copy_out(void* to, const void* from, int64_t bytes, Stream stream) {
  copy_in(to, from, bytes, stream);
  synchronize(stream);
}
void copy(void* to, const void* from, int64_t bytes, Stream) {
  if (bytes > 0) std::memmove(to, from, static_cast<std::size_t>(bytes));
}
void fill_zero(void* to, int64_t bytes, Stream) {
  if (bytes > 0) std::memset(to, 0, static_cast<std::size_t>(bytes));
}
void wait(Stream, Stream) {}
void synchronize(Stream) {
  if (const int found = std::exchange(fault_cell, 0)) {
    throw std::invalid_argument(fault_message(found));
  }
}
void finish(const char*) {}

std::unique_ptr<Graph> capture(const std::function<void()>& body) {
  std::vector<std::function<void()>> launches;
  struct Capture {
    explicit Capture(std::vector<std::function<void()>>* to) { captured = to; }
    ~Capture() { captured = nullptr; }
  };
  {
    const Capture capturing(&launches);
    body();
  }
  return std::make_unique<Launches>(std::move(launches));
}

}  // namespace chainrule::cuda
