// The words of CUDA that kernels are written in, over fibers on the CPU: the blocks of a grid one
// after another, the threads of a block in turns, each on a stack of its own until it waits. What a
// GPU would leave undefined where threads wait for each other is an error here that says where.
//
// Races show only as a difference between orders: CHAINRULE_SIMT_ORDER is `forward` (the default),
// `backward` or `shuffled`, for blocks and for the threads of a block.
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
// One block runs at a time, in the whole process.
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

using Where = std::source_location;

// What the running thread is.
struct Index {
  dim3 thread{0, 0, 0}, block{0, 0, 0}, block_size, grid_size;
  int lane = 0;
};
extern Index index;

// Calls `thread` as every thread of every block. std::runtime_error where they do what a GPU's
// could not.
void run(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
         const std::function<void()>& thread);

extern unsigned char* dynamic_shared;

void wait_for_block(const char* what, const Where& where);

// A lane's value as the other lanes of its warp see it.
struct Slot {
  alignas(8) unsigned char bytes[8];
};
// Waits until every lane that `mask` names has come with its value; theirs, by lane. They are valid
// until the next call of this lane.
const Slot* exchange(const char* what, unsigned mask, const Slot& own, const Where& where);
// The running thread reads from `lane`, which has to have come.
void require_lane(const char* what, unsigned mask, int lane, const Where& where);

template <class T>
T value_of(const char* what, unsigned mask, T own, int lane, const Where& where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  Slot slot{};
  std::memcpy(slot.bytes, &own, sizeof own);
  const Slot* const all = exchange(what, mask, slot, where);
  require_lane(what, mask, lane, where);
  std::memcpy(&own, all[lane].bytes, sizeof own);
  return own;
}

unsigned ballot(const char* what, unsigned mask, bool predicate, const Where& where);

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

inline void __syncthreads(const simt::Where& where = simt::Where::current()) {
  simt::wait_for_block("__syncthreads", where);
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const simt::Where& where = simt::Where::current()) {
  simt::exchange("__syncwarp", mask, {}, where);
}

// Lanes beyond the end of a group of `width` give a thread its own value back.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              const simt::Where& where = simt::Where::current()) {
  const int first = simt::index.lane & ~(width - 1);
  return simt::value_of("__shfl_sync", mask, value, first + (source & (width - 1)), where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32,
                  const simt::Where& where = simt::Where::current()) {
  const int lane = simt::index.lane, source = lane ^ distance;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return simt::value_of("__shfl_xor_sync", mask, value, inside ? source : lane, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int distance, int width = 32,
                   const simt::Where& where = simt::Where::current()) {
  const int lane = simt::index.lane, source = lane + distance;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return simt::value_of("__shfl_down_sync", mask, value, inside ? source : lane, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const simt::Where& where = simt::Where::current()) {
  return simt::ballot("__ballot_sync", mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      const simt::Where& where = simt::Where::current()) {
  return simt::ballot("__any_sync", mask, predicate != 0, where) != 0;
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
