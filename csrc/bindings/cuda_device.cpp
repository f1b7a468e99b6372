// The GPU as a Device. Kernels run on the calling thread's stream, and programs are CUDA graphs.
#include <cstdlib>

#include "bindings/cuda_array.h"
#include "cuda/gemm/precision.h"
#include "cuda/runtime/limits.h"
#include "cuda/runtime/runtime.h"

namespace chainrule::bindings {
namespace {

using cuda::Stream;

// While this thread captures a graph, it must not wait for the device.
thread_local bool capturing = false;

class DeviceWorkspace {
 public:
  DeviceWorkspace(int64_t bytes, Stream stream)
      : stream_(stream), memory_(cuda::allocate(bytes, stream)) {}
  ~DeviceWorkspace() { cuda::release(memory_, stream_); }
  DeviceWorkspace(const DeviceWorkspace&) = delete;
  DeviceWorkspace& operator=(const DeviceWorkspace&) = delete;
  void* data() const { return memory_; }

 private:
  Stream stream_;
  void* memory_;
};

// CHAINRULE_CUDA_SYNC=1 makes every operation wait, so that its own errors name it. By default an
// asynchronous error surfaces at a later wait.
bool synchronize_always() {
  static const bool always = [] {
    const char* const text = std::getenv("CHAINRULE_CUDA_SYNC");
    return text && *text && std::string(text) != "0";
  }();
  return always;
}

class CudaReplay final : public Replay {
 public:
  CudaReplay(const std::vector<RecordedStep>& steps, int64_t bytes,
             const std::vector<void*>& streams)
      : stream_(cuda::current_stream()), streams_(streams), workspace_(bytes, stream_) {
    struct Capturing {
      Capturing() { capturing = true; }
      ~Capturing() { capturing = false; }
    } const scope;
    graph_ = cuda::capture([&] {
      for (const RecordedStep& recorded : steps) {
        recorded.step(Workspace{workspace_.data(), recorded.workers});
        cuda::check_launches("Program");
      }
    });
  }
  // Runs on the stream of the thread that recorded the program, because its arrays belong to it.
  void run() override {
    for (void* const other : streams_) cuda::stream_wait(stream_, static_cast<Stream>(other));
    graph_->launch(stream_);
    for (void* const other : streams_) cuda::stream_wait(static_cast<Stream>(other), stream_);
    // So that synchronize() in the calling thread waits for the graph.
    cuda::stream_wait(cuda::current_stream(), stream_);
    if (synchronize_always()) cuda::synchronize(stream_);
  }

 private:
  Stream stream_;
  std::vector<void*> streams_;
  DeviceWorkspace workspace_;
  std::unique_ptr<cuda::Graph> graph_;
};

class Cuda final : public Device {
 public:
  const char* name() const override { return "the GPU"; }
  const Backend& backend() const override { return cuda::kernels(); }
  int64_t max_extent() const override { return cuda::max_extent; }

  ArrayRef allocate(DType type, const Shape& shape) const override {
    const py::object array = py::cast(CudaArray(type, shape));
    return array.cast<const CudaArray&>().ref(array);
  }

  Step recordable(Step step) const override {
    return [step = std::move(step),
            precision = cuda::matmul_precision.load()](const Workspace& workspace) {
      const cuda::ScopedPrecision scope(precision);
      step(workspace);
    };
  }

  void run(const char* op, int64_t bytes, int workers, const StepRef& work,
           std::span<const ArrayRef> arrays) const override {
    const ScopedGilRelease no_gil;
    const cuda::DeviceGuard on_gpu;
    const Stream stream = cuda::current_stream();
    // Streams wait in both directions: the kernel waits for earlier work on its arrays, and later
    // work on them, or their release, waits for the kernel.
    for (const ArrayRef& ref : arrays) wait(stream, ref);
    const DeviceWorkspace workspace(bytes, stream);
    work(Workspace{workspace.data(), workers});
    cuda::check_launches(op);
    for (const ArrayRef& ref : arrays) {
      if (ref.stream) cuda::stream_wait(static_cast<Stream>(ref.stream), stream);
    }
    if (synchronize_always()) synchronize(op, stream);
  }

  std::unique_ptr<Replay> prepare(const std::vector<RecordedStep>& steps, int64_t bytes,
                                  const std::vector<void*>& streams) const override {
    const ScopedGilRelease no_gil;
    return std::make_unique<CudaReplay>(steps, bytes, streams);
  }

  bool copy_to_host(const void* from, int64_t bytes, void* to) const override {
    if (capturing) return false;
    cuda::copy_to_host(to, from, bytes, cuda::current_stream());
    return true;
  }

 private:
  static void wait(Stream stream, const ArrayRef& ref) {
    if (ref.stream) cuda::stream_wait(stream, static_cast<Stream>(ref.stream));
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
