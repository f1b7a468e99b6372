#include "cuda/runtime/runtime.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cuda/runtime/device_error_watcher.h"

namespace chainrule::cuda {

extern const Backend backend;
extern const TrainingStepKernels training_step_table;
extern const void* const any_kernel;

void record_launch_error(cudaError_t error);  // declared in launch.h only for nvcc

namespace {

constexpr int gpu = 0;                // device in use
constexpr int least_capability = 80;  // lowest architecture in CMakeLists.txt

void check(const char* what, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // clears the error if it is not sticky
  throw std::runtime_error(std::string("cuda: could not ") + what + ": " +
                           cudaGetErrorString(error));
}

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string in_mib(int64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// Per-process state, initialized once.
struct State {
  std::string why_off, description;
  pid_t process = getpid();
  cudaMemPool_t pool = nullptr;

  State() {
    try {
      why_off = start();
    } catch (const std::runtime_error& error) {
      why_off = error.what();
    }
  }

  std::string start() {
    int driver = 0, runtime = 0, devices = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
      return "no NVIDIA driver is installed (libcuda.so.1 not found)";
    }
    check("read the runtime version", cudaRuntimeGetVersion(&runtime));
    const cudaError_t found = cudaGetDeviceCount(&devices);
    if (found == cudaErrorInsufficientDriver) {
      return "the NVIDIA driver must support CUDA " + version(runtime) + " or later, got " +
             version(driver);
    }
    if (found == cudaErrorNoDevice || (found == cudaSuccess && devices == 0)) {
      return "the NVIDIA driver finds no GPU (CUDA_VISIBLE_DEVICES can hide GPUs)";
    }
    check("count GPUs", found);
    cudaDeviceProp properties;
    check("read the GPU properties", cudaGetDeviceProperties(&properties, gpu));
    const std::string capability =
        std::to_string(properties.major) + "." + std::to_string(properties.minor);
    if (properties.major * 10 + properties.minor < least_capability) {
      return std::string(properties.name) + ": compute capability must be 8.0 or later, got " +
             capability;
    }
    if (!properties.memoryPoolsSupported) {
      return std::string(properties.name) + ": the GPU must support memory pools";
    }
    const DeviceGuard here;
    // Without this check, missing code for this GPU would show only at the first launch.
    cudaFuncAttributes attributes;
    const cudaError_t code = cudaFuncGetAttributes(&attributes, any_kernel);
    if (code != cudaSuccess) {
      cudaGetLastError();
      return std::string(properties.name) + " (compute capability " + capability +
             "): chainrule is built without kernels for this GPU: " + cudaGetErrorString(code);
    }
    make_pool();
    description = std::string(properties.name) + ", compute capability " + capability + ", " +
                  in_mib(static_cast<int64_t>(properties.totalGlobalMem)) + ", driver for CUDA " +
                  version(driver) + ", runtime " + version(runtime);
    return {};
  }

  void make_pool() {
    cudaMemPoolProps wanted{};
    wanted.allocType = cudaMemAllocationTypePinned;
    wanted.location.type = cudaMemLocationTypeDevice;
    wanted.location.id = gpu;
    check("create a memory pool", cudaMemPoolCreate(&pool, &wanted));
    uint64_t all = UINT64_MAX;  // freed memory stays in the pool until it is trimmed
    check("set the release threshold of the memory pool",
          cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all));
  }
};

const State& state() {
  // Never destroyed: arrays may outlive it at the end of the process.
  static const State& only = *new State();
  return only;
}

// Streams outlive their threads, because arrays refer to them. A new thread reuses an idle one.
std::mutex idle_lock;
std::vector<Stream>& idle_streams() {
  static std::vector<Stream>& only = *new std::vector<Stream>();
  return only;
}

// Not cudaStreamNonBlocking. Other libraries use our memory on the default stream. Such work must
// wait for this stream, and this stream for it, also before the memory is reused.
struct OwnStream {
  Stream stream = nullptr;

  OwnStream() {
    const DeviceGuard here;
    const std::lock_guard guard(idle_lock);
    if (!idle_streams().empty()) {
      stream = idle_streams().back();
      idle_streams().pop_back();
    } else {
      check("create a stream", cudaStreamCreate(&stream));
    }
  }
  ~OwnStream() {
    const std::lock_guard guard(idle_lock);
    idle_streams().push_back(stream);
  }
};

// Error words are in mapped host memory, so that checking needs no copy. The memory is never freed,
// because a kernel may write to it after the last check.
std::mutex spare_words_lock;
std::vector<int*>& spare_words() {
  static std::vector<int*>& only = *new std::vector<int*>();
  return only;
}

DeviceErrorWord take_error_word() {
  constexpr std::size_t together = 1024;
  const std::lock_guard guard(spare_words_lock);
  if (spare_words().empty()) {
    const DeviceGuard here;
    void* memory = nullptr;
    check("map host memory", cudaHostAlloc(&memory, together * sizeof(int), cudaHostAllocMapped));
    for (std::size_t i = 0; i < together; ++i) {
      spare_words().push_back(static_cast<int*>(memory) + i);
    }
  }
  int* const error_word = spare_words().back();
  spare_words().pop_back();
  *error_word = 0;
  return {error_word, [](int* done) {
            const std::lock_guard again(spare_words_lock);
            spare_words().push_back(done);
          }};
}

thread_local DeviceErrorWatcher watched_errors;
thread_local DeviceErrorWord own_word, captured_word;

thread_local cudaError_t launch_error = cudaSuccess;
thread_local Stream capturing = nullptr;  // while this thread records a graph

// Excludes captures during allocate's last resort, which synchronizes the device and would
// invalidate a capture.
std::shared_mutex captures;

class CapturedGraph final : public Graph {
 public:
  CapturedGraph(cudaGraph_t graph, DeviceErrorWord error_word)
      : error_word_(std::move(error_word)) {
    const cudaError_t error = cudaGraphInstantiate(&ready_, graph, 0);
    cudaGraphDestroy(graph);
    check("instantiate a Program's graph", error);
  }
  ~CapturedGraph() override { cudaGraphExecDestroy(ready_); }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void launch(Stream stream) override {
    const DeviceGuard here;
    watched_errors.add(error_word_);
    check("run a Program", cudaGraphLaunch(ready_, stream));
  }

 private:
  DeviceErrorWord error_word_;
  cudaGraphExec_t ready_ = nullptr;
};

}  // namespace

const Backend& kernels() { return backend; }
const TrainingStepKernels& training_step_kernels() { return training_step_table; }

int* device_errors() {
  if (captured_word) return captured_word.get();
  if (!own_word) watched_errors.add(own_word = take_error_word());
  return own_word.get();
}

const std::string& why_off() {
  static const std::string forked =
      "this process was forked after its parent had used CUDA; CUDA does not work after a fork";
  return state().why_off.empty() && state().process != getpid() ? forked : state().why_off;
}

const std::string& description() { return state().description; }

DeviceGuard::DeviceGuard() {
  check("read the current device", cudaGetDevice(&before_));
  if (before_ != gpu) check("select the GPU", cudaSetDevice(gpu));
}
DeviceGuard::~DeviceGuard() {
  if (before_ != gpu) cudaSetDevice(before_);
}

Stream current_stream() {
  if (capturing) return capturing;
  thread_local const OwnStream own;
  return own.stream;
}

Stream default_stream() { return cudaStreamLegacy; }

void* allocate(int64_t bytes, Stream stream) {
  if (bytes == 0) return nullptr;
  const DeviceGuard here;
  void* found = nullptr;
  const auto attempt = [&] {
    return cudaMallocFromPoolAsync(&found, static_cast<std::size_t>(bytes), state().pool, stream);
  };
  cudaError_t error = attempt();
  if (error == cudaErrorMemoryAllocation && !capturing) {
    cudaGetLastError();
    synchronize_device();  // what was freed on other streams is free once they are done
    check("trim the memory pool", cudaMemPoolTrimTo(state().pool, 0));
    error = attempt();
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const MemoryInfo left = memory();
    throw OutOfMemory("cuda: out of memory: " + in_mib(bytes) + " requested, " + in_mib(left.free) +
                      " of " + in_mib(left.total) + " free");
  }
  check("allocate memory", error);
  return found;
}

void release(void* memory, Stream stream) noexcept {
  if (!memory) return;
  int before = gpu;
  const bool elsewhere = cudaGetDevice(&before) == cudaSuccess && before != gpu;
  if (elsewhere) cudaSetDevice(gpu);
  cudaFreeAsync(memory, stream);
  if (elsewhere) cudaSetDevice(before);
}

MemoryInfo memory() {
  const DeviceGuard here;
  std::size_t free = 0, total = 0;
  check("read the free memory", cudaMemGetInfo(&free, &total));
  uint64_t reserved = 0, used = 0;
  check("read the memory pool's usage",
        cudaMemPoolGetAttribute(state().pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
  check("read the memory pool's usage",
        cudaMemPoolGetAttribute(state().pool, cudaMemPoolAttrUsedMemCurrent, &used));
  return {static_cast<int64_t>(free + reserved - used), static_cast<int64_t>(total)};
}

void copy_to_device(void* to, const void* from, int64_t bytes, Stream stream) {
  if (bytes == 0) return;
  const DeviceGuard here;
  check("copy to the GPU",
        cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream));
  // A copy from pinned memory is asynchronous, so wait before the caller can change it.
  check("copy to the GPU", cudaStreamSynchronize(stream));
}

void copy_to_host(void* to, const void* from, int64_t bytes, Stream stream) {
  const DeviceGuard here;
  if (bytes > 0) {
    check("copy from the GPU", cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes),
                                               cudaMemcpyDeviceToHost, stream));
  }
  synchronize(stream);
}

void copy_on_device(void* to, const void* from, int64_t bytes, Stream stream) {
  if (bytes == 0) return;
  const DeviceGuard here;
  check("copy on the GPU", cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes),
                                           cudaMemcpyDeviceToDevice, stream));
}

void fill_zero(void* to, int64_t bytes, Stream stream) {
  if (bytes == 0) return;
  const DeviceGuard here;
  check("clear memory", cudaMemsetAsync(to, 0, static_cast<std::size_t>(bytes), stream));
}

void stream_wait(Stream later, Stream earlier) {
  if (later == earlier) return;
  const DeviceGuard here;
  cudaEvent_t event = nullptr;
  check("create an event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  cudaError_t error = cudaEventRecord(event, earlier);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(later, event, 0);
  cudaEventDestroy(event);  // deferred by CUDA until the wait is done
  check("order streams", error);
}

void synchronize(Stream stream) {
  const DeviceGuard here;
  check("finish the work on the GPU", cudaStreamSynchronize(stream));
  watched_errors.check(stream == current_stream());
}

void synchronize_device() {
  const DeviceGuard here;
  const std::unique_lock alone(captures);
  check("finish the work on the GPU", cudaDeviceSynchronize());
}

void record_launch_error(cudaError_t error) {
  if (launch_error == cudaSuccess) launch_error = error;
}

void check_launches(const char* op) {
  const cudaError_t error = std::exchange(launch_error, cudaSuccess);
  if (error == cudaSuccess) return;
  cudaGetLastError();
  throw std::runtime_error(std::string(op) + ": CUDA: " + cudaGetErrorString(error));
}

std::unique_ptr<Graph> capture(const std::function<void()>& body) {
  const DeviceGuard here;
  const std::shared_lock guard(captures);
  struct Own {
    Own() {
      // Non-blocking, because work of other libraries on the default stream would invalidate the
      // capture.
      check("create a stream", cudaStreamCreateWithFlags(&capturing, cudaStreamNonBlocking));
    }
    ~Own() {
      cudaStreamDestroy(std::exchange(capturing, nullptr));
      captured_word = nullptr;
    }
  } const own;
  captured_word = take_error_word();
  check("capture a Program", cudaStreamBeginCapture(capturing, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    body();
  } catch (...) {
    if (cudaStreamEndCapture(capturing, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    cudaGetLastError();
    launch_error = cudaSuccess;
    throw;
  }
  check("capture a Program", cudaStreamEndCapture(capturing, &graph));
  return std::make_unique<CapturedGraph>(graph, captured_word);
}

}  // namespace chainrule::cuda
