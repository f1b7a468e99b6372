// Which faults a thread hears of: those of its own calls and of the programs that it ran.
#pragma once

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda/runtime/device_errors.h"

namespace chainrule::cuda {

// Where the kernels of one program, or of one thread's other calls, tell of faults.
using FaultCell = std::shared_ptr<int>;

// The cells that a thread looks at when it waits.
class FaultCells {
 public:
  void add(const FaultCell& cell) {
    if (std::find(cells_.begin(), cells_.end(), cell) == cells_.end()) cells_.push_back(cell);
  }

  // std::invalid_argument where a kernel has told of something since. `all_done`: none of those
  // that tell is still queued, so of a program that is gone nothing more will be heard.
  void look(bool all_done) {
    int found = 0;
    for (const FaultCell& cell : cells_) {
      found |= __atomic_exchange_n(cell.get(), 0, __ATOMIC_ACQ_REL);
    }
    if (all_done)
      std::erase_if(cells_, [](const FaultCell& cell) { return cell.use_count() == 1; });
    if (found != 0) throw std::invalid_argument(fault_message(found));
  }

 private:
  std::vector<FaultCell> cells_;
};

}  // namespace chainrule::cuda
