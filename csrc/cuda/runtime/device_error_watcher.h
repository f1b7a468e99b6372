// Errors that kernels reported, collected per host thread: those of its own calls and of the
// programs that it ran.
#pragma once

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda/runtime/device_errors.h"

namespace chainrule::cuda {

// Bit mask of DeviceError, written by the kernels of one program, or of one thread's other calls.
using DeviceErrorWord = std::shared_ptr<int>;

// The error words that a thread checks when it synchronizes.
class DeviceErrorWatcher {
 public:
  void add(const DeviceErrorWord& word) {
    if (std::find(words_.begin(), words_.end(), word) == words_.end()) words_.push_back(word);
  }

  // Throws std::invalid_argument if a kernel reported an error since the last check. If `all_done`,
  // no kernel that writes these words is still queued, so words of destroyed programs are dropped.
  void check(bool all_done) {
    int found = 0;
    for (const DeviceErrorWord& word : words_) {
      found |= __atomic_exchange_n(word.get(), 0, __ATOMIC_ACQ_REL);
    }
    if (all_done)
      std::erase_if(words_, [](const DeviceErrorWord& word) { return word.use_count() == 1; });
    if (found != 0) throw std::invalid_argument(device_error_message(found));
  }

 private:
  std::vector<DeviceErrorWord> words_;
};

}  // namespace chainrule::cuda
