// The GPU as a device: kernels run on the calling thread's stream, programs are captured graphs.
#include <cstdlib>

#include "bindings/cuda_array.h"
#include "cuda/gemm/precision.h"
#include "cuda/runtime/limits.h"
#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

using cuda::Stream;

// While a graph is captured nothing may wait for the device.
thread_local bool capturing = false;

class Workspaces {
 public:
  Workspaces(int64_t bytes, Stream stream)
      : stream_(stream), memory_(cuda::allocate(bytes, stream)) {}
  ~Workspaces() { cuda::release(memory_, stream_); }
  Workspaces(const Workspaces&) = delete;
  Workspaces& operator=(const Workspaces&) = delete;
  void* data() const { return memory_; }

 private:
  Stream stream_;
  void* memory_;
};

// For finding the operation behind an error that only shows when somebody waits.
bool waits_always() {
  static const bool always = [] {
    const char* const text = std::getenv("CHAINRULE_CUDA_SYNC");
    return text && *text && std::string(text) != "0";
  }();
  return always;
}

class CudaReplay final : public Replay {
 public:
  CudaReplay(const std::vector<Recorded>& steps, int64_t bytes, const std::vector<void*>& streams)
      : stream_(cuda::current_stream()), streams_(streams), workspace_(bytes, stream_) {
    struct Capturing {
      Capturing() { capturing = true; }
      ~Capturing() { capturing = false; }
    } const now;
    graph_ = cuda::capture([&] {
      for (const Recorded& recorded : steps) {
        recorded.step(Workspace{workspace_.data(), recorded.workers});
        cuda::check_launches("Program");
      }
    });
  }
  // On the stream of the thread that recorded it, whoever runs it: its arrays belong there.
  void run() override {
    for (void* const other : streams_) cuda::stream_wait(stream_, static_cast<Stream>(other));
    graph_->launch(stream_);
    for (void* const other : streams_) cuda::stream_wait(static_cast<Stream>(other), stream_);
    // So that synchronize() in this thread waits for it.
    cuda::stream_wait(cuda::current_stream(), stream_);
    if (waits_always()) cuda::synchronize(stream_);
  }

 private:
  Stream stream_;
  std::vector<void*> streams_;
  Workspaces workspace_;
  std::unique_ptr<cuda::Graph> graph_;
};

class Cuda final : public Device {
 public:
  const char* place() const override { return "the GPU"; }
  const Backend& backend() const override { return cuda::kernels(); }
  int64_t most_counted() const override { return cuda::max_extent; }

  Held allocate(Type type, const Shape& shape) const override {
    const py::object array = py::cast(CudaArray(type, shape));
    return array.cast<const CudaArray&>().held(array);
  }

  Step recordable(Step step) const override {
    return [step = std::move(step),
            precision = cuda::matmul_precision.load()](const Workspace& workspace) {
      const cuda::ScopedPrecision now(precision);
      step(workspace);
    };
  }

  void run(const char* op, int64_t bytes, int workers, const Work& work,
           std::span<const Held> arrays) const override {
    const Unlocked unlocked;
    const cuda::DeviceGuard here;
    const Stream stream = cuda::current_stream();
    // Both ways: nobody overwrites or frees an array on its own stream before it was read here.
    for (const Held& held : arrays) wait(stream, held);
    const Workspaces workspace(bytes, stream);
    work(Workspace{workspace.data(), workers});
    cuda::check_launches(op);
    for (const Held& held : arrays) {
      if (held.stream) cuda::stream_wait(static_cast<Stream>(held.stream), stream);
    }
    if (waits_always()) synchronize(op, stream);
  }

  std::unique_ptr<Replay> prepare(const std::vector<Recorded>& steps, int64_t bytes,
                                  const std::vector<void*>& streams) const override {
    const Unlocked unlocked;
    return std::make_unique<CudaReplay>(steps, bytes, streams);
  }

  bool look(const void* from, int64_t bytes, void* to) const override {
    if (capturing) return false;
    cuda::copy_to_host(to, from, bytes, cuda::current_stream());
    return true;
  }

 private:
  static void wait(Stream stream, const Held& held) {
    if (held.stream) cuda::stream_wait(stream, static_cast<Stream>(held.stream));
  }
  static void synchronize(const char* op, Stream stream) {
    try {
      cuda::synchronize(stream);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(std::string(op) + ": " + error.what());
    }
  }
};

}  // namespace

const Device& gpu() {
  static const Cuda device;
  return device;
}

void require_gpu(const std::string& who) {
  if (!cuda::why_off().empty()) throw std::runtime_error(who + ": CUDA is off: " + cuda::why_off());
}

}  // namespace chainrule::bindings
