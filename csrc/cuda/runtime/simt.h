// CUDA keywords and intrinsics used by kernels: those of nvcc, or the CPU emulation in tests/simt
// for any other compiler.
#pragma once

#ifdef __CUDACC__

#include <cuda_runtime.h>

namespace chainrule::cuda {

// The block's dynamic shared memory, of the size passed to `launch`, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ uint4 chainrule_dynamic_shared[];
  return reinterpret_cast<T*>(chainrule_dynamic_shared);
}

}  // namespace chainrule::cuda

#else
#include "simt/shim.h"
#endif
