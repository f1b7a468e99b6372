// CUDA keywords and intrinsics over fibers on the CPU, so that kernels compile as C++. Blocks of a
// grid run one after another. Threads of a block take turns, each on its own stack until it waits.
// Invalid synchronization, undefined on a GPU, is an error here that gives the source location.
//
// Races show as differences between scheduling orders. CHAINRULE_SIMT_ORDER is `forward` (the
// default), `backward` or `shuffled`, for blocks and for the threads of a block.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Static is enough: one block runs at a time in the whole process.
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  constexpr explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
      : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace simt {

using Location = std::source_location;

// Built-in variables of the running thread.
struct Index {
  dim3 thread{0, 0, 0}, block{0, 0, 0}, block_size, grid_size;
  int lane = 0;
};
extern Index index;

// Calls `thread` as every thread of every block. Throws std::runtime_error on an invalid launch or
// invalid synchronization.
void run(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
         const std::function<void()>& thread);

extern unsigned char* dynamic_shared;

void wait_for_block(const char* function, const Location& location);

// A value that a lane shares with the other lanes of its warp.
struct LaneValue {
  alignas(8) unsigned char bytes[8];
};
// Waits until every lane of `mask` has called it. Returns their values, indexed by lane, valid
// until the calling lane's next exchange.
const LaneValue* exchange(const char* function, unsigned mask, const LaneValue& own_value,
                          const Location& location);
// Fails unless `lane` is in the mask and the warp.
void require_lane(const char* function, unsigned mask, int lane, const Location& location);

template <class T>
T exchange_value(const char* function, unsigned mask, T own_value, int lane,
                 const Location& location) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  LaneValue value{};
  std::memcpy(value.bytes, &own_value, sizeof own_value);
  const LaneValue* const all = exchange(function, mask, value, location);
  require_lane(function, mask, lane, location);
  std::memcpy(&own_value, all[lane].bytes, sizeof own_value);
  return own_value;
}

unsigned ballot(const char* function, unsigned mask, bool predicate, const Location& location);

}  // namespace simt

#define threadIdx simt::index.thread
#define blockIdx simt::index.block
#define blockDim simt::index.block_size
#define gridDim simt::index.grid_size

namespace chainrule::cuda {

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(simt::dynamic_shared);
}

}  // namespace chainrule::cuda

inline void __syncthreads(const simt::Location& location = simt::Location::current()) {
  simt::wait_for_block("__syncthreads", location);
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const simt::Location& location = simt::Location::current()) {
  simt::exchange("__syncwarp", mask, {}, location);
}

// If the source is outside the group of `width` lanes, returns the thread's own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const simt::Location& location = simt::Location::current()) {
  const int first = simt::index.lane & ~(width - 1);
  return simt::exchange_value("__shfl_sync", mask, value, first + (source & (width - 1)), location);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32,
                  const simt::Location& location = simt::Location::current()) {
  const int lane = simt::index.lane, source = lane ^ distance;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return simt::exchange_value("__shfl_xor_sync", mask, value, inside ? source : lane, location);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int distance, int width = 32,
                   const simt::Location& location = simt::Location::current()) {
  const int lane = simt::index.lane, source = lane + distance;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return simt::exchange_value("__shfl_down_sync", mask, value, inside ? source : lane, location);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const simt::Location& location = simt::Location::current()) {
  return simt::ballot("__ballot_sync", mask, predicate != 0, location);
}
inline int __any_sync(unsigned mask, int predicate,
                      const simt::Location& location = simt::Location::current()) {
  return simt::ballot("__any_sync", mask, predicate != 0, location) != 0;
}

inline int atomicOr(int* cell, int bits) {
  const int before = *cell;
  *cell = before | bits;
  return before;
}

inline uint32_t __umulhi(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>((uint64_t{a} * b) >> 32);
}
template <class T>
T __ldg(const T* address) {
  return *address;
}
