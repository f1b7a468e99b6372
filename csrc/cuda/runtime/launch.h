// Kernel calls from host code. They are asynchronous, on the calling thread's current stream; none
// throws under CUDA: the first that fails is kept for `finish` of runtime.h.
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

// The cell into which kernels that are launched now atomicOr a Fault. The runtime looks at it where
// the host waits.
int* faults();

#ifdef __CUDACC__

// Keeps the first error of this thread, which `finish` in runtime.h throws. Defined in runtime.cpp.
void keep(cudaError_t error);

// More dynamic shared memory than this has to be asked for.
constexpr std::size_t granted_shared_bytes = 48 * 1024;

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (dynamic_shared_bytes > granted_shared_bytes) {
    keep(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(dynamic_shared_bytes)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_shared_bytes;
  config.stream = current_stream();
  keep(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// Zeros, in the order of the launches.
template <class T>
void clear(T* to, int64_t count) {
  if (count == 0) return;
  keep(cudaMemsetAsync(to, 0, static_cast<std::size_t>(count) * sizeof(T), current_stream()));
}

#else

// Where this thread's launches go while a graph is captured; null: they run at once.
inline thread_local std::vector<std::function<void()> >* captured = nullptr;

template <class F>
void run_or_capture(const F& run) {
  if (captured) captured->push_back(run);
  else run();
}

// simt::run(grid, block, dynamic_shared_bytes, thread) calls thread() as each thread of each block,
// and throws std::runtime_error where they do what a GPU's could not.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
            const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const std::tuple<Parameters...> held(static_cast<Parameters>(arguments)...);
  run_or_capture(
      [=] { simt::run(grid, block, dynamic_shared_bytes, [&] { std::apply(kernel, held); }); });
}

template <class T>
void clear(T* to, int64_t count) {
  if (count == 0) return;
  run_or_capture([=] { std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(T)); });
}

#endif

}  // namespace chainrule::cuda
