// Random zeros from Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
// 2011), the CPU's to the bit: element e takes word e % 4 of the block with counter (e / 4, offset)
// under the key `seed`. So a four of elements is a block of words.
#include "cuda/elements.h"
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
    k0 += 0x9E3779B9;  // the golden ratio
    k1 += 0xBB67AE85;  // the square root of 3, less 1
  }
}

template <class T>
struct Mask {
  const T* x;
  T* y;
  uint64_t seed, offset;
  const uint64_t* device_offset;
  uint32_t threshold;
  T scale;

  struct Held {
    T x[4];
    uint64_t offset;
  };
  template <bool whole>
  __device__ __forceinline__ void load(const Four<whole>& four, Held& held) const {
    four.load(x, held.x);
    held.offset = device_offset ? *device_offset : offset;
  }
  template <bool whole>
  __device__ __forceinline__ void store(const Four<whole>& four, Held& held) const {
    uint32_t random[4];
    philox_words(static_cast<uint64_t>(four.first) / 4, held.offset, seed, random);
    // Selected, not multiplied away: a dropped NaN is 0.
#pragma unroll
    for (int i = 0; i < 4; ++i) held.x[i] = random[i] >= threshold ? held.x[i] * scale : T(0);
    four.store(held.x, y);
  }
};

}  // namespace

template <class T>
void dropout(const T* x, T* y, const Dropout& s) {
  for_fours(Mask<T>{.x = x,
                    .y = y,
                    .seed = s.seed,
                    .offset = s.offset,
                    .device_offset = s.device_offset,
                    .threshold = s.threshold,
                    .scale = static_cast<T>(s.scale)},
            Fours::from_zero(s.size, {x, y}));
}

CR_INSTANTIATE(dropout);

}  // namespace chainrule::cuda
