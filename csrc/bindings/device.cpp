#include "bindings/device.h"

#include <cxxabi.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "cpu/convolution_precision.h"
#include "cpu/dispatch.h"
#include "cpu/scratch.h"

namespace chainrule::bindings {
namespace {

class Replayed final : public Replay {
 public:
  Replayed(const std::vector<RecordedStep>& steps, int64_t bytes)
      : replay_(steps, static_cast<std::size_t>(bytes)) {}
  void run() override { replay_.run(); }

 private:
  CpuReplay replay_;
};

class Cpu final : public Device {
 public:
  const char* name() const override { return "the CPU"; }
  const Backend& backend() const override { return active_backend(); }
  int64_t max_extent() const override { return INT64_MAX; }
  ArrayRef allocate(DType type, const Shape& shape) const override {
    const py::array array(numpy_dtype(type), shape);
    return {array, array.data(), shape, type, this};
  }
  Step recordable(Step step) const override {
    return
        [step = std::move(step), precision = convolution_precision()](const Workspace& workspace) {
          const ScopedConvolutionPrecision scope(precision);
          step(workspace);
        };
  }
  void run(const char*, int64_t bytes, int workers, const StepRef& work,
           std::span<const ArrayRef>) const override {
    const ScopedGilRelease no_gil;
    work(Workspace{scratch(static_cast<std::size_t>(bytes)), workers});
  }
  std::unique_ptr<Replay> prepare(const std::vector<RecordedStep>& steps, int64_t bytes,
                                  const std::vector<void*>&) const override {
    return std::make_unique<Replayed>(steps, bytes);
  }
  bool copy_to_host(const void* from, int64_t bytes, void* to) const override {
    if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return true;
  }
};

}  // namespace

ScopedGilRelease::~ScopedGilRelease() {
  try {
    PyEval_RestoreThread(state_);
  } catch (abi::__forced_unwind&) {
    for (;;) ::pause();
  }
}

const Device& cpu() {
  static const Cpu device;
  return device;
}

}  // namespace chainrule::bindings
