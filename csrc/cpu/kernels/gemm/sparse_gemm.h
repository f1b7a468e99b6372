// c (m, n) = a (m, k) · b (k, n) where most elements of a are zero, as behind a rectifier, dropout,
// or in the black of a digit: the work of the others alone.
//
// A task takes rows of a by one sliver of b, which it packs for itself: the rows, and what they
// become, stay with the worker that has them in the next operation too. A block of a sliver,
// block_depth rows, 32 kB, stays in the first-level cache while the rows of a pass by. Which of a
// row's elements are not zero is a set of bits; each bit is one multiply-add for every register of
// the sliver's row, and the row's sums stay in registers meanwhile.
//
//   registers                8 sums + one broadcast of a. A sum waits 4 cycles for its last
//                            multiply-add, of which Zen 5 and AVX2 start two a cycle
//   a bit                    8 multiply-adds, 9 loads: 4.5 cycles where two are loaded in one; then
//                            1.4 for the end of a row's bits, which is not foreseen (Zen 5, digits)
//
// A step of the MLP 784-128-10 takes 113 us so, and 127 with half as wide a sliver, the depth cut
// into parts, and these added up (Zen 5, two threads).
//
// The result is the dense one: a product with an exact zero adds nothing. But 0 · infinity is NaN,
// so a block of b that holds a number that is not finite meets the zeros of a too.
#pragma once

#include "cpu/kernels/gemm/gemm.h"
#include "cpu/kernels/nonzero_mask.h"

namespace chainrule::CR_ISA {

template <class T>
class SparseProduct {
 public:
  // With `transposed`, c is stored as (n, k)'s transpose would be: element (i, j) at c[j * m + i].
  explicit SparseProduct(const Product<T>& product, bool transposed = false)
      : p_(product), transposed_(transposed) {}

  // Whether so large a product may take this road at all; then it depends on how sparse a is.
  bool possible() const {
    return p_.m * p_.n * p_.k >= least_products && !(transposed_ && p_.k > most_transposed);
  }
  int64_t workspace(int workers) const {
    if (!possible()) return 0;
    return words_bytes() + workers * own_size() * static_cast<int64_t>(sizeof(T));
  }

  // The share of a's elements that are not zero, in a sample of 4096.
  static double density(const T* a, int64_t size) {
    constexpr int64_t runs = 64, length = 64;
    if (size < runs * length) return 1;
    int64_t found = 0;
    for (int64_t i = 0; i < runs; ++i) {
      // Not at the same place of each row.
      uint64_t word;
      set_of_row(a + (i * (size / runs) + i * 613) % (size - length), length, &word);
      found += __builtin_popcountll(word);
    }
    return static_cast<double>(found) / (runs * length);
  }
  // Even with the dense product, measured on Zen 4 at 128 x 784 x 128 and 128 x 9216 x 128.
  static constexpr double sparse_enough = 0.45;

  void run(const Workspace& lent) const {
    uint64_t* const words = static_cast<uint64_t*>(lent.data);
    find(words, lent.workers);
    T* const own = reinterpret_cast<T*>(static_cast<char*>(lent.data) + words_bytes());
    const int64_t groups = groups_for(lent.workers);
    const int64_t cycles = p_.cycles(p_.k) / 2;
    parallel(slivers() * groups, cycles, lent.workers, [&](int64_t task, int worker) {
      const int64_t group = task / slivers(), sliver = task % slivers();
      const Part part{group * p_.m / groups, (group + 1) * p_.m / groups, sliver};
      T* const panel = own + worker * own_size();
      if (transposed_) transposed(part, words, panel);
      else rows(part, words, panel);
    });
  }

 private:
  static constexpr int64_t least_products = 1 << 20;
  static constexpr int64_t most_transposed = 1024;
  static constexpr int width = Vec<T>::width, sliver_vectors = 8;
  static constexpr int64_t wide = sliver_vectors * width;
  static constexpr int64_t block_depth = (32 << 10) / (wide * sizeof(T));
  static_assert(block_depth % 64 == 0);
  static constexpr int64_t group_rows = 256, least_rows = 16;

  // What a task does: rows [top, bottom) of a by one sliver of b.
  struct Part {
    int64_t top, bottom, sliver;
  };

  int64_t word_count() const { return ceil_div(p_.k, 64); }
  int64_t words_bytes() const { return round_up(p_.m * word_count() * 8, 64); }
  int64_t slivers() const { return ceil_div(p_.n, wide); }
  int64_t blocks() const { return larger(1, ceil_div(p_.k, block_depth)); }
  // Each group packs b for itself: as few as keep all workers busy.
  int64_t groups_for(int workers) const {
    const int64_t fewest = larger(1, p_.m / group_rows);
    if (slivers() % workers == 0 || slivers() > 4 * workers) return fewest;
    return larger(1, smaller(p_.m / least_rows, round_up(fewest, workers)));
  }
  int64_t own_size() const {
    const int64_t depth = transposed_ ? blocks() * block_depth : block_depth;
    return (depth + (transposed_ ? width : 0)) * wide;
  }

  void find(uint64_t* words, int workers) const {
    const int64_t cycles = p_.m * p_.k / width;
    if (p_.a_step == 1) {
      parallel_ranges(p_.m, 1, 8, p_.k / width, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          set_of_row(p_.a + i * p_.a_row, p_.k, words + i * word_count());
        }
      });
    } else {
      parallel(word_count(), cycles, workers, [&](int64_t word, int) {
        sets_of_columns(p_.a + word * 64 * p_.m, smaller(64, p_.k - word * 64), p_.m, words + word,
                        word_count());
      });
    }
  }

  // A block of b where the loop below reads it. True if all of it is finite.
  bool pack(const Packed<T>& packed, int64_t sliver, int64_t first, T* target) const {
    p_.pack(packed, sliver, first, target - packed.sliver_offset(sliver));
    return all_finite(packed.depth * packed.sliver_step(sliver), target);
  }

  struct Row {
    const uint64_t* words;
    int64_t depth;
    bool all;  // zeros too
    const T* a;
    int64_t a_step;
    const T* b;
    int64_t b_step;
    T* c;
    int64_t columns;
  };

  template <int vectors>
  static void add_row(const Row& row, const Epilogue<T>& epilogue) {
    using V = Vec<T>;
    V total[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) total[j] = V::zero();
    for (int64_t first = 0; first < row.depth; first += 64) {
      const int64_t left = row.depth - first;
      const uint64_t every = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
      const T* const a = row.a + first * row.a_step;
      const T* const b = row.b + first * row.b_step;
      for (uint64_t bits = row.all ? every : row.words[first / 64]; bits; bits &= bits - 1) {
        const int64_t l = __builtin_ctzll(bits);
        const V value = V::set(a[l * row.a_step]);
        const T* const from = b + l * row.b_step;
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) {
          total[j] = fma(value, V::load(from + j * V::width), total[j]);
        }
      }
    }
    finish_row<vectors>(total, row.c, row.columns, epilogue);
  }

  template <int vectors = sliver_vectors>
  static void add_to(const Row& row, const Epilogue<T>& epilogue) {
    if constexpr (vectors > 1) {
      if (row.b_step < vectors * width) return add_to<vectors - 1>(row, epilogue);
    }
    add_row<vectors>(row, epilogue);
  }

  static void add(const Row& row, const Epilogue<T>& epilogue) {
    // Nothing to add, as in the black around a digit.
    if (epilogue.accumulate && !epilogue.bias && !epilogue.relu && !row.all) {
      uint64_t any = 0;
      for (int64_t word = 0; word * 64 < row.depth; ++word) any |= row.words[word];
      if (any == 0) return;
    }
    add_to(row, epilogue);
  }

  void rows(const Part& part, const uint64_t* words, T* panel) const {
    const int64_t column = part.sliver * wide;
    for (int64_t block = 0; block < blocks(); ++block) {
      const int64_t first = block * block_depth;
      const Packed<T> packed{smaller(block_depth, p_.k - first), p_.n, wide};
      const bool finite = pack(packed, part.sliver, first, panel);
      Epilogue<T> epilogue;
      epilogue.accumulate = block > 0;
      if (block + 1 == blocks()) {
        epilogue.bias = p_.bias ? p_.bias + column : nullptr;
        epilogue.relu = p_.relu;
      }
      for (int64_t i = part.top; i < part.bottom; ++i) {
        add({words + i * word_count() + first / 64, packed.depth, !finite,
             p_.a + i * p_.a_row + first * p_.a_step, p_.a_step, panel,
             packed.sliver_step(part.sliver), p_.c + i * p_.n + column,
             packed.sliver_columns(part.sliver)},
            epilogue);
      }
    }
  }

  // A square of results at a time, turned over in registers.
  void transposed(const Part& part, const uint64_t* words, T* panel) const {
    const Packed<T> packed{p_.k, p_.n, wide};
    const int64_t step = packed.sliver_step(part.sliver), column = part.sliver * wide;
    const int64_t columns = packed.sliver_columns(part.sliver);
    T* const results = panel + blocks() * block_depth * wide;
    const bool finite = pack(packed, part.sliver, 0, panel);
    for (int64_t top = part.top; top < part.bottom; top += width) {
      const int64_t count = smaller(width, part.bottom - top);
      for (int64_t block = 0; block < blocks(); ++block) {
        const int64_t first = block * block_depth;
        Epilogue<T> epilogue;
        epilogue.accumulate = block > 0;
        for (int64_t i = 0; i < count; ++i) {
          add({words + (top + i) * word_count() + first / 64, smaller(block_depth, p_.k - first),
               !finite, p_.a + (top + i) * p_.a_row + first * p_.a_step, p_.a_step,
               panel + first * step, step, results + i * step, step},
              epilogue);
        }
      }
      for (int64_t j = 0; j < columns; j += width) {
        Vec<T> square[width];
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i) square[i] = Vec<T>::load(results + i * step + j);
        transpose<T>(square);
#pragma GCC unroll 16
        for (int i = 0; i < width; ++i) {
          if (j + i >= columns) break;
          T* const to = p_.c + (column + j + i) * p_.m + top;
          if (count == width) square[i].store(to);
          else square[i].store(to, count);
        }
      }
    }
  }

  Product<T> p_;
  bool transposed_;
};

}  // namespace chainrule::CR_ISA
