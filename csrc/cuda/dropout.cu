// Dropout mask from Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
// 2011), bit-identical to the CPU. Element e uses word e % 4 of the block with counter (e / 4,
// offset) and key `seed`. So one vec4 uses one block of four words.
#include "cuda/elementwise.h"
#include "cuda/kernel.h"

namespace chainrule::cuda {
namespace {

__device__ __forceinline__ uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
__device__ __forceinline__ uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

__device__ __forceinline__ void philox_words(uint64_t block, uint64_t offset, uint64_t seed,
                                             uint32_t (&c)[4]) {
  c[0] = low(block);
  c[1] = high(block);
  c[2] = low(offset);
  c[3] = high(offset);
  uint32_t k0 = low(seed), k1 = high(seed);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{c[0]} * 0xD2511F53, p1 = uint64_t{c[2]} * 0xCD9E8D57;
    c[0] = high(p1) ^ c[1] ^ k0;
    c[1] = low(p1);
    c[2] = high(p0) ^ c[3] ^ k1;
    c[3] = low(p0);
    k0 += 0x9E3779B9;  // golden ratio
    k1 += 0xBB67AE85;  // square root of 3, minus 1
  }
}

template <class T>
struct DropoutFunctor {
  const T* x;
  T* y;
  uint64_t seed, offset;
  const uint64_t* device_offset;
  uint32_t threshold;
  T scale;

  struct Registers {
    T x[4];
    uint64_t offset;
  };
  template <bool full>
  __device__ __forceinline__ void load(const Vec4<full>& vec4, Registers& registers) const {
    vec4.load(x, registers.x);
    registers.offset = device_offset ? *device_offset : offset;
  }
  template <bool full>
  __device__ __forceinline__ void store(const Vec4<full>& vec4, Registers& registers) const {
    uint32_t random[4];
    philox_words(static_cast<uint64_t>(vec4.first) / 4, registers.offset, seed, random);
    // A selection, not a product: a dropped NaN becomes 0.
#pragma unroll
    for (int i = 0; i < 4; ++i)
      registers.x[i] = random[i] >= threshold ? registers.x[i] * scale : T(0);
    vec4.store(registers.x, y);
  }
};

}  // namespace

template <class T>
void dropout(const T* x, T* y, const Dropout& s) {
  launch_elementwise(DropoutFunctor<T>{.x = x,
                                       .y = y,
                                       .seed = s.seed,
                                       .offset = s.offset,
                                       .device_offset = s.device_offset,
                                       .threshold = s.threshold,
                                       .scale = static_cast<T>(s.scale)},
                     Vec4Layout::starting_at_zero(s.size, {x, y}));
}

CR_INSTANTIATE(dropout);

}  // namespace chainrule::cuda
