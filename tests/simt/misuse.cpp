// Kernels with invalid synchronization or out-of-bounds writes, run by name. Prints the emulation's
// error, or the kernel's output.
#include <cstdio>
#include <exception>
#include <map>
#include <string>

#include "cuda/runtime/launch.h"

namespace chainrule::cuda {

__global__ void barrier_for_some(int* out) {
  if (threadIdx.x < 5) __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void two_barriers(int* out) {
  if (threadIdx.x < 40) __syncthreads();
  else __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void warp_for_some(int* out) {
  if (threadIdx.x != 7) __syncwarp();
  out[threadIdx.x] = 1;
}

__global__ void absent_lane(int* out) { out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 16); }

__global__ void unnamed_lane(int* out) { out[threadIdx.x] = __shfl_sync(0xffu, 1, 0); }

__global__ void masks_differ(int* out) {
  const unsigned mask = threadIdx.x < 16 ? 0xffffffffu : 0xfffffffeu;
  out[threadIdx.x] = __shfl_sync(mask, 1, 31);
}

__global__ void past_the_end(int*) { dynamic_shared<int>()[9] = 1; }

__global__ void reversed(int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

// A race: the value read depends on the order of the threads.
__global__ void race(int* out) {
  __shared__ int values[64];
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = values[63 - threadIdx.x] == static_cast<int>(63 - threadIdx.x);
}

// A race at a missing barrier: one warp can run ahead of another up to the next block barrier.
__global__ void overtaken(int* out) {
  __shared__ int value;
  if (threadIdx.x == 0) value = 1;
  __syncthreads();
  out[threadIdx.x] = value;
  __syncwarp();
  if (threadIdx.x == 0) value = 2;
}

__global__ void sums(int* out) {
  int value = static_cast<int>(threadIdx.x);
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(~0u, value, distance);
  }
  out[threadIdx.x] = value;
}

}  // namespace chainrule::cuda

int main(int count, char** words) {
  using namespace chainrule::cuda;
  const std::map<std::string, void (*)(int*)> kernels = {{"barrier_for_some", barrier_for_some},
                                                         {"two_barriers", two_barriers},
                                                         {"warp_for_some", warp_for_some},
                                                         {"absent_lane", absent_lane},
                                                         {"unnamed_lane", unnamed_lane},
                                                         {"masks_differ", masks_differ},
                                                         {"past_the_end", past_the_end},
                                                         {"reversed", reversed},
                                                         {"race", race},
                                                         {"overtaken", overtaken},
                                                         {"sums", sums}};
  if (count != 3) return 2;
  const auto threads = static_cast<unsigned>(std::stoi(words[2]));
  static int memory[2048];
  int* const out = memory;
  try {
    launch(kernels.at(words[1]), dim3(1), dim3(threads), 36, out);
  } catch (const std::exception& error) {
    std::puts(error.what());
    return 0;
  }
  for (unsigned i = 0; i < threads; ++i) std::printf("%d ", out[i]);
}
