#include "cpu/replay.h"

#include <chrono>

#include "cpu/float_mode.h"

namespace chainrule {

CpuReplay::CpuReplay(const std::vector<RecordedStep>& steps, std::size_t bytes)
    : steps_(steps), memory_(allocate(bytes)) {}

void CpuReplay::run() {
  const FlushSubnormals flush;
  if (tuner_.max_threads() != num_threads()) tuner_ = ThreadCountTuner(num_threads());
  const ScopedThreadLimit limit(tuner_.threads());
  const auto start = std::chrono::steady_clock::now();
  for (const RecordedStep& recorded : steps_) {
    recorded.step(Workspace{memory_.get(), recorded.workers});
    if (!keep_going(0)) return;
  }
  const std::chrono::nanoseconds passed = std::chrono::steady_clock::now() - start;
  tuner_.record(passed.count());
}

}  // namespace chainrule
