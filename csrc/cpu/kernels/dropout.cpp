// Random zeros from Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
// 2011): the random word of an element is a function of seed, offset and the element's index, so
// the mask is the same for any split of the work and on any device, and need not be stored.
//
// Element e takes word e % 4 of the block with counter (e / 4, offset) under the key `seed`.
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {
namespace {

constexpr int blocks =
    64;  // computed side by side; of 16 the compiler unrolls the loop instead of vectorising it
constexpr int64_t words = 4 * blocks;

void philox_words(uint64_t first_block, uint64_t offset, uint64_t seed, uint32_t* out) {
  uint32_t c0[blocks], c1[blocks], c2[blocks], c3[blocks];
  for (int i = 0; i < blocks; ++i) {
    const uint64_t block = first_block + static_cast<uint64_t>(i);
    c0[i] = static_cast<uint32_t>(block);
    c1[i] = static_cast<uint32_t>(block >> 32);
    c2[i] = static_cast<uint32_t>(offset);
    c3[i] = static_cast<uint32_t>(offset >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < blocks; ++i) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c0[i];
      const uint64_t p1 = uint64_t{0xCD9E8D57} * c2[i];
      c0[i] = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<uint32_t>(p1);
      c2[i] = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<uint32_t>(p0);
    }
    k0 += 0x9E3779B9;  // the golden ratio
    k1 += 0xBB67AE85;  // the square root of 3, less 1
  }
  for (int i = 0; i < blocks; ++i) {
    out[4 * i] = c0[i];
    out[4 * i + 1] = c1[i];
    out[4 * i + 2] = c2[i];
    out[4 * i + 3] = c3[i];
  }
}

}  // namespace

template <class T>
void dropout(const T* x, T* y, const Dropout& s) {
  const T scale = static_cast<T>(s.scale);
  parallel_ranges(s.size, 64 * words, 2, [&](int64_t begin, int64_t end) {
    uint32_t random[words];
    for (int64_t first = begin; first < end; first += words) {
      philox_words(static_cast<uint64_t>(first) / 4, s.offset, s.seed, random);
      const int64_t count = smaller(words, end - first);
      for (int64_t i = 0; i < count; ++i) {
        y[first + i] = random[i] >= s.threshold ? x[first + i] * scale : T(0);
      }
    }
  });
}

CR_INSTANTIATE(dropout);

}  // namespace chainrule::CR_ISA
