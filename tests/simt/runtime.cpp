// The runtime in CPU memory: a GPU that runs on any machine. Launches run at once, unless a graph
// is being captured. All streams are one.
#include "cuda/runtime/runtime.h"

#include <sys/mman.h>

#include <cstring>
#include <mutex>
#include <stdexcept>
#include <unordered_map>

#include "cuda/runtime/device_error_watcher.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {

extern const Backend backend;
extern const TrainingStepKernels training_step_table;

namespace {

constexpr int64_t total_bytes = int64_t{1} << 30;

std::mutex lock;
int64_t used = 0;
bool overran = false;  // a kernel wrote past the end of an array

// An allocation on its own pages, ending at most 15 bytes before a guard page. An access past the
// end faults, or is detected when the memory is released.
class GuardedBlock {
 public:
  explicit GuardedBlock(int64_t bytes) : bytes_(static_cast<std::size_t>(bytes)) {
    void* const pages =
        mmap(nullptr, all(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<unsigned char*>(pages);
    mprotect(pages_ + all() - page, page, PROT_NONE);
    std::memset(pages_, 0xff, all() - page);  // NaN, so that unwritten results are detected
  }
  void* data() const { return pages_ + all() - page - whole(); }
  int64_t bytes() const { return static_cast<int64_t>(bytes_); }
  void release_pages() const {
    const unsigned char* const start = static_cast<const unsigned char*>(data());
    for (std::size_t i = bytes_; i < whole(); ++i) overran |= start[i] != 0xff;
    munmap(pages_, all());
  }

 private:
  static constexpr std::size_t page = 4096;
  std::size_t whole() const { return (bytes_ + 15) / 16 * 16; }
  std::size_t all() const { return (whole() + page - 1) / page * page + page; }
  std::size_t bytes_;
  unsigned char* pages_;
};

std::unordered_map<void*, GuardedBlock>& allocations() {
  static auto& only = *new std::unordered_map<void*, GuardedBlock>();
  return only;
}

thread_local DeviceErrorWatcher watched_errors;
thread_local DeviceErrorWord own_word, captured_word;

class RecordedGraph final : public Graph {
 public:
  RecordedGraph(std::vector<std::function<void()>> launches, DeviceErrorWord error_word)
      : launches_(std::move(launches)), error_word_(std::move(error_word)) {}
  void launch(Stream) override {
    watched_errors.add(error_word_);
    for (const auto& run : launches_) run();
  }

 private:
  std::vector<std::function<void()>> launches_;
  DeviceErrorWord error_word_;
};

}  // namespace

int* device_errors() {
  if (captured_word) return captured_word.get();
  if (!own_word) watched_errors.add(own_word = std::make_shared<int>(0));
  return own_word.get();
}
const Backend& kernels() { return backend; }
const TrainingStepKernels& training_step_kernels() { return training_step_table; }

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

DeviceGuard::DeviceGuard() {}
DeviceGuard::~DeviceGuard() {}

void* allocate(int64_t bytes, Stream) {
  if (bytes == 0) return nullptr;
  const std::lock_guard guard(lock);
  if (bytes > total_bytes - used) {
    throw OutOfMemory("cuda: out of memory: " + std::to_string(bytes >> 20) + " MiB requested, " +
                      std::to_string((total_bytes - used) >> 20) + " MiB of 1024 MiB free");
  }
  const GuardedBlock block(bytes);
  allocations().emplace(block.data(), block);
  used += bytes;
  return block.data();
}

void release(void* memory, Stream) noexcept {
  if (!memory) return;
  const std::lock_guard guard(lock);
  const auto found = allocations().find(memory);
  used -= found->second.bytes();
  found->second.release_pages();
  allocations().erase(found);
}

MemoryInfo memory() {
  const std::lock_guard guard(lock);
  return {total_bytes - used, total_bytes};
}

void copy_to_device(void* to, const void* from, int64_t bytes, Stream) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}
void copy_to_host(void* to, const void* from, int64_t bytes, Stream stream) {
  copy_to_device(to, from, bytes, stream);
  synchronize(stream);
}
void copy_on_device(void* to, const void* from, int64_t bytes, Stream) {
  const auto first = reinterpret_cast<uintptr_t>(to), second = reinterpret_cast<uintptr_t>(from);
  const auto size = static_cast<uintptr_t>(bytes);
  if (first != second && first < second + size && second < first + size) {
    throw std::runtime_error("copy_on_device: source and destination must not overlap");
  }
  if (bytes > 0) std::memmove(to, from, static_cast<std::size_t>(bytes));
}
void fill_zero(void* to, int64_t bytes, Stream) {
  if (bytes > 0) std::memset(to, 0, static_cast<std::size_t>(bytes));
}
void stream_wait(Stream, Stream) {}
void synchronize_device() {}
void synchronize(Stream stream) {
  if (std::exchange(overran, false)) {
    throw std::runtime_error("a kernel wrote past the end of an array");
  }
  watched_errors.check(stream == current_stream());
}
void check_launches(const char*) {}

std::unique_ptr<Graph> capture(const std::function<void()>& body) {
  std::vector<std::function<void()>> launches;
  struct Capture {
    explicit Capture(std::vector<std::function<void()>>* to) {
      capture_target = to;
      captured_word = std::make_shared<int>(0);
    }
    ~Capture() {
      capture_target = nullptr;
      captured_word = nullptr;
    }
  };
  const Capture capturing(&launches);
  body();
  return std::make_unique<RecordedGraph>(std::move(launches), captured_word);
}

}  // namespace chainrule::cuda
