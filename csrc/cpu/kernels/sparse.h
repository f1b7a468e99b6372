// c (m, n) = a (m, k) · b (k, n) where most elements of a are zero, as behind a rectifier, dropout,
// or in the black of a digit: the work of the others alone.
//
// A block of b, block_depth rows of one sliver (32 kB in float32 with AVX-512 and AVX2), stays in
// the first-level cache while the rows of a pass by. Which of a row's elements are not zero is a
// set of bits; each bit is one multiply-add for every register of the sliver's row, and the row's
// sums stay in registers meanwhile.
//
//   registers of a sliver    sliver_vectors sums + one broadcast of a
//   multiply-adds in flight  a sum waits for its last one: 4 cycles for AVX-512's one a cycle
//                            (Zen 4), so 4 sums; for two a cycle 8. With AVX2 a step of the MLP
//                            784-128-10 takes 300 us so, and 490 with the 2 of the tile (Zen 3)
//
// The result is the dense one: a product with an exact zero adds nothing. But 0 · infinity is NaN,
// so a block of b that holds a number that is not finite meets the zeros of a too.
#pragma once

#include "cpu/kernels/product.h"
#include "cpu/kernels/sets.h"

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
    const int64_t partials = chunks() > 1 ? chunks() * partial_size() : 0;
    return words_bytes() + (partials + workers * own_size()) * static_cast<int64_t>(sizeof(T));
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
    T* const partials = reinterpret_cast<T*>(static_cast<char*>(lent.data) + words_bytes());
    const bool split = chunks() > 1;
    T* const own = partials + (split ? chunks() * partial_size() : 0);
    const int64_t pieces = slivers() * groups();
    parallel(chunks() * pieces, p_.cycles(p_.k) / 2, lent.workers, [&](int64_t task, int worker) {
      const int64_t chunk = task / pieces, piece = task % pieces;
      const int64_t group = piece / slivers(), sliver = piece % slivers();
      const Part part{group * p_.m / groups(), (group + 1) * p_.m / groups(),
                      chunk * blocks() / chunks(), (chunk + 1) * blocks() / chunks(), sliver};
      T* const target = split ? partials + chunk * partial_size() : p_.c;
      T* const panel = own + worker * own_size();
      if (transposed_) transposed(part, words, panel);
      else rows(part, words, panel, target, !split);
    });
    if (split) p_.add_partials(partials, partial_size(), chunks(), lent.workers);
  }

 private:
  static constexpr int64_t least_products = 1 << 20;
  static constexpr int64_t block_depth = 128, most_transposed = 1024;
  static constexpr int64_t group_rows = 128, enough_tasks = 16;
  static constexpr int width = Vec<T>::width;
  static constexpr int sliver_vectors = width * sizeof(T) == 64 ? 4 : 8;
  static constexpr int64_t wide = sliver_vectors * width;

  // What a task does: rows [top, bottom) of a, blocks [first, last) of the depth, one sliver of b.
  struct Part {
    int64_t top, bottom, first, last, sliver;
  };

  int64_t word_count() const { return ceil_div(p_.k, 64); }
  int64_t words_bytes() const { return round_up(p_.m * word_count() * 8, 64); }
  int64_t slivers() const { return ceil_div(p_.n, wide); }
  int64_t blocks() const { return larger(1, ceil_div(p_.k, block_depth)); }
  int64_t groups() const { return larger(1, p_.m / group_rows); }
  // The depth is split where rows and slivers make too few tasks.
  int64_t chunks() const {
    if (transposed_) return 1;
    return smaller(blocks(), ceil_div(enough_tasks, slivers() * groups()));
  }
  int64_t partial_size() const { return round_up(p_.m * p_.n, 16); }
  int64_t own_size() const {
    const int64_t depth = transposed_ ? blocks() * block_depth : block_depth;
    return (depth + (transposed_ ? width : 0)) * wide;
  }

  void find(uint64_t* words, int workers) const {
    const int64_t cycles = p_.m * p_.k / width;
    if (p_.a_step == 1) {
      parallel(p_.m, cycles, workers, [&](int64_t i, int) {
        set_of_row(p_.a + i * p_.a_row, p_.k, words + i * word_count());
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
  static void add(const Row& row, const Epilogue<T>& epilogue) {
    if constexpr (vectors > 1) {
      if (row.b_step < vectors * width) return add<vectors - 1>(row, epilogue);
    }
    add_row<vectors>(row, epilogue);
  }

  void rows(const Part& part, const uint64_t* words, T* panel, T* target, bool finishes) const {
    const int64_t column = part.sliver * wide;
    for (int64_t block = part.first; block < part.last; ++block) {
      const int64_t first = block * block_depth;
      const Packed<T> packed{smaller(block_depth, p_.k - first), p_.n, wide};
      const bool finite = pack(packed, part.sliver, first, panel);
      Epilogue<T> epilogue;
      epilogue.accumulate = block > part.first;
      if (finishes && block + 1 == part.last) {
        epilogue.bias = p_.bias ? p_.bias + column : nullptr;
        epilogue.rectify = p_.rectify;
      }
      for (int64_t i = part.top; i < part.bottom; ++i) {
        add({words + i * word_count() + first / 64, packed.depth, !finite,
             p_.a + i * p_.a_row + first * p_.a_step, p_.a_step, panel,
             packed.sliver_step(part.sliver), target + i * p_.n + column,
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
      for (int64_t i = 0; i < count; ++i) {
        add({words + (top + i) * word_count(), p_.k, !finite, p_.a + (top + i) * p_.a_row,
             p_.a_step, panel, step, results + i * step, step},
            Epilogue<T>());
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
