// The words that kernels are written in: CUDA's own under nvcc, and the same ones over fibers on
// the CPU (tests/simt) under any other compiler.
#pragma once

#ifdef __CUDACC__

#include <cuda_runtime.h>

namespace chainrule::cuda {

// The block's dynamic shared memory, of the size that `launch` was told; aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 chainrule_dynamic_shared[];
  return reinterpret_cast<T*>(chainrule_dynamic_shared);
}

}  // namespace chainrule::cuda

#else
#include "simt/shim.h"
#endif
