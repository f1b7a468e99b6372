// Kernel launches from host code. They are asynchronous, on the calling thread's current stream.
// Under CUDA they do not throw: the thread's first error is stored for check_launches() in
// runtime.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cuda/runtime/device_errors.h"
#include "cuda/runtime/simt.h"
#include "cuda/runtime/stream.h"

#ifndef __CUDACC__
#include <cstring>
#include <functional>
#include <tuple>
#include <vector>
#endif

namespace chainrule::cuda {

// Returns the error word for kernels launched now: a bit mask of DeviceError, set by atomicOr. The
// runtime checks it when the host synchronizes.
int* device_errors();

#ifdef __CUDACC__

// Stores the thread's first error for check_launches(). Defined in runtime.cpp.
void record_launch_error(cudaError_t error);

// More dynamic shared memory than this requires a function attribute.
constexpr std::size_t default_shared_bytes = 48 * 1024;

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (dynamic_shared_bytes > default_shared_bytes) {
    record_launch_error(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(dynamic_shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_shared_bytes;
  config.stream = current_stream();
  record_launch_error(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// Sets elements to zero, in stream order.
template <class T>
void clear(T* to, int64_t count) {
  if (count == 0) return;
  record_launch_error(
      cudaMemsetAsync(to, 0, static_cast<std::size_t>(count) * sizeof(T), current_stream()));
}

#else

// Receives this thread's launches while a graph is captured. If null, launches run at once.
inline thread_local std::vector<std::function<void()> >* capture_target = nullptr;

template <class F>
void run_or_record(const F& run) {
  if (capture_target) capture_target->push_back(run);
  else run();
}

// simt::run(grid, block, dynamic_shared_bytes, thread) calls thread() as each thread of each block.
// It throws std::runtime_error on an invalid launch or synchronization error.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const std::tuple<Parameters...> stored(static_cast<Parameters>(arguments)...);
  run_or_record(
      [=] { simt::run(grid, block, dynamic_shared_bytes, [&] { std::apply(kernel, stored); }); });
}

template <class T>
void clear(T* to, int64_t count) {
  if (count == 0) return;
  run_or_record([=] { std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(T)); });
}

#endif

}  // namespace chainrule::cuda
