// Dropout with Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
// The random word of an element is a function of seed, offset and index. The mask is therefore the
// same for any split of the work and on any device, and is not stored.
//
// Element e uses word e % 4 of the block with counter (e / 4, offset) and key `seed`.
#include "cpu/kernels/kernel.h"
#include "cpu/simd/words.h"

namespace chainrule::CR_ISA {
namespace {

constexpr int blocks = 16;  // computed together: at least the lanes of the widest vector
constexpr int64_t words = 4 * blocks;

void philox_words(uint64_t first_block, uint64_t offset, uint64_t seed, uint32_t* out) {
  uint32_t c[4][blocks];
  for (int i = 0; i < blocks; ++i) {
    const uint64_t block = first_block + static_cast<uint64_t>(i);
    c[0][i] = static_cast<uint32_t>(block);
    c[1][i] = static_cast<uint32_t>(block >> 32);
    c[2][i] = static_cast<uint32_t>(offset);
    c[3][i] = static_cast<uint32_t>(offset >> 32);
  }
  for (int i = 0; i < blocks; i += words_width) {
    Words c0 = load_words(c[0] + i), c1 = load_words(c[1] + i);
    Words c2 = load_words(c[2] + i), c3 = load_words(c[3] + i);
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const WideProduct p0 = multiply_wide(c0, 0xD2511F53), p1 = multiply_wide(c2, 0xCD9E8D57);
      c0 = p1.high ^ c1 ^ k0;
      c1 = p1.low;
      c2 = p0.high ^ c3 ^ k1;
      c3 = p0.low;
      k0 += 0x9E3779B9;  // the golden ratio
      k1 += 0xBB67AE85;  // the square root of 3, minus 1
    }
    store_words(c[0] + i, c0);
    store_words(c[1] + i, c1);
    store_words(c[2] + i, c2);
    store_words(c[3] + i, c3);
  }
  for (int i = 0; i < blocks; ++i) {
    for (int j = 0; j < 4; ++j) out[4 * i + j] = c[j][i];
  }
}

}  // namespace

template <class T>
void dropout(const T* x, T* y, const Dropout& s) {
  using V = Vec<T>;
  parallel_for_ranges(s.size, words, 256 * words, 2, [&](int64_t begin, int64_t end) {
    // Local copies. Read through the capture, they prevented vectorization of the loop.
    const T scale = static_cast<T>(s.scale);
    const uint32_t threshold = s.threshold;
    uint32_t random[words];
    T factors[words];
    for (int64_t first = begin; first < end; first += words) {
      philox_words(static_cast<uint64_t>(first) / 4, s.offset, s.seed, random);
      for (int64_t i = 0; i < words; ++i) factors[i] = random[i] >= threshold ? scale : T(0);
      const int64_t count = min(words, end - first);
      for (int64_t i = 0; i < count; i += V::width) {
        // A dropped element is selected, not multiplied by 0, so a dropped NaN is 0.
        const auto keep = [&](V v) {
          const V factor = V::load(factors + i);
          return select(factor > V::zero(), v * factor, V::zero());
        };
        const int64_t left = count - i;
        if (left >= V::width) {
          keep(V::load(x + first + i)).store(y + first + i);
        } else {
          keep(V::load(x + first + i, left, T(0))).store(y + first + i, left);
        }
      }
    }
  });
}

CR_INSTANTIATE(dropout);

}  // namespace chainrule::CR_ISA
