// Sparse-A GEMM: c (m, n) = a (m, k) · b (k, n) for an a with many zeros. ReLU, dropout and the
// black pixels of digits give such matrices. Only the nonzero elements of a are multiplied.
//
// A task takes some rows of a and one panel of b, which it packs. The rows of a and of c stay with
// the worker that has them in the next operation. A block of a panel has block_depth rows, 32 kB.
// It stays in the L1 cache while all rows of the task use it. A bit mask marks the nonzero elements
// of a row. Each bit is one multiply-add per vector of the panel's row. The sums of a row stay in
// registers.
//
//   registers    8 sums + one broadcast of a. A sum waits 4 cycles for its last multiply-add, and
//                Zen 5 and CPUs with AVX2 start two per cycle
//   per bit      8 multiply-adds and 9 loads: 4.5 cycles at two loads per cycle. The end of a row's
//                bits is mispredicted, which adds 1.4 cycles (Zen 5, digits)
//
// A step of the MLP 784-128-10 takes 113 us. With panels of half the width, a split depth and added
// partial results it takes 127 us (Zen 5, two threads).
//
// The result is the dense one, because a product with an exact zero adds nothing. But 0 · infinity
// is NaN. If a block of b holds a non-finite number, the zeros of a are multiplied too.
#pragma once

#include "cpu/kernels/gemm/gemm.h"
#include "cpu/kernels/nonzero_mask.h"

namespace chainrule::CR_ISA {

template <class T>
class SparseGemm {
 public:
  // If `transpose_c` is set, c is stored transposed: element (i, j) is c[j * m + i].
  explicit SparseGemm(const Gemm<T>& gemm, bool transpose_c = false)
      : g_(gemm), transpose_c_(transpose_c) {}

  // Returns true if this algorithm can run a product of this size. The caller then compares the
  // density of a with max_density.
  bool supports() const {
    // The results of all blocks of the depth are added in order.
    return g_.m * g_.n * g_.k >= min_multiply_adds && g_.k <= Gemm<T>::max_part_depth &&
           !(transpose_c_ && g_.k > max_transposed_depth);
  }
  int64_t workspace_size(int workers) const {
    if (!supports()) return 0;
    return mask_bytes() + workers * worker_scratch_size() * static_cast<int64_t>(sizeof(T));
  }

  // Returns the fraction of nonzero elements of a, from a sample of 4096 elements.
  static double density(const T* a, int64_t size) {
    constexpr int64_t samples = 64, length = 64;
    if (size < samples * length) return 1;
    int64_t nonzero = 0;
    for (int64_t i = 0; i < samples; ++i) {
      // The offset makes the samples fall on different columns.
      uint64_t mask;
      nonzero_mask_of_row(a + (i * (size / samples) + i * 613) % (size - length), length, &mask);
      nonzero += __builtin_popcountll(mask);
    }
    return static_cast<double>(nonzero) / (samples * length);
  }
  // At this density both algorithms take the same time (Zen 4, 128 x 784 x 128 and 128 x 9216 x
  // 128).
  static constexpr double max_density = 0.45;

  void run(const Workspace& workspace) const {
    uint64_t* const mask = static_cast<uint64_t*>(workspace.data);
    fill_mask(mask, workspace.workers);
    T* const worker_scratch =
        reinterpret_cast<T*>(static_cast<char*>(workspace.data) + mask_bytes());
    const int64_t groups = groups_for(workspace.workers);
    const int64_t cycles = g_.cycles(g_.k) / 2;
    parallel_for(panels() * groups, cycles, workspace.workers, [&](int64_t task, int worker) {
      const int64_t group = task / panels(), panel = task % panels();
      const TaskRange range{group * g_.m / groups, (group + 1) * g_.m / groups, panel};
      T* const scratch = worker_scratch + worker * worker_scratch_size();
      if (transpose_c_) run_transposed(range, mask, scratch);
      else run_rows(range, mask, scratch);
    });
  }

 private:
  static constexpr int64_t min_multiply_adds = 1 << 20;
  static constexpr int64_t max_transposed_depth = 1024;
  static constexpr int width = Vec<T>::width, panel_vectors = 8;
  static constexpr int64_t panel_width = panel_vectors * width;
  static constexpr int64_t block_depth = (32 << 10) / (panel_width * sizeof(T));
  static_assert(block_depth % 64 == 0);
  static constexpr int64_t group_rows = 256, min_group_rows = 16;

  // A task: rows [top, bottom) of a and one panel of b.
  struct TaskRange {
    int64_t top, bottom, panel;
  };

  int64_t mask_words() const { return ceil_div(g_.k, 64); }
  int64_t mask_bytes() const { return round_up(g_.m * mask_words() * 8, 64); }
  int64_t panels() const { return ceil_div(g_.n, panel_width); }
  int64_t blocks() const { return max(1, ceil_div(g_.k, block_depth)); }
  // Each group packs b again, so there are only as many groups as are needed to occupy all workers.
  int64_t groups_for(int workers) const {
    const int64_t fewest = max(1, g_.m / group_rows);
    if (panels() % workers == 0 || panels() > 4 * workers) return fewest;
    return max(1, min(g_.m / min_group_rows, round_up(fewest, workers)));
  }
  int64_t worker_scratch_size() const {
    const int64_t depth = transpose_c_ ? blocks() * block_depth : block_depth;
    return (depth + (transpose_c_ ? width : 0)) * panel_width;
  }

  void fill_mask(uint64_t* mask, int workers) const {
    const int64_t cycles = g_.m * g_.k / width;
    if (g_.a_step == 1) {
      parallel_for_ranges(g_.m, 1, 8, g_.k / width, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          nonzero_mask_of_row(g_.a + i * g_.a_row, g_.k, mask + i * mask_words());
        }
      });
    } else {
      parallel_for(mask_words(), cycles, workers, [&](int64_t word, int) {
        nonzero_mask_of_columns(g_.a + word * 64 * g_.m, min(64, g_.k - word * 64), g_.m,
                                mask + word, mask_words());
      });
    }
  }

  // Packs a block of b. Returns true if all of it is finite.
  bool pack(const PackedMatrix<T>& packed, int64_t panel, int64_t first, T* target) const {
    g_.pack(packed, panel, first, target - packed.panel_offset(panel));
    return all_finite(packed.depth * packed.panel_stride(panel), target);
  }

  struct Row {
    const uint64_t* mask;
    int64_t depth;
    bool include_zeros;
    const T* a;
    int64_t a_step;
    const T* b;
    int64_t b_step;
    T* c;
    int64_t columns;
  };

  template <int vectors>
  static void accumulate_vectors(const Row& row, const Epilogue<T>& epilogue) {
    using V = Vec<T>;
    V total[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) total[j] = V::zero();
    for (int64_t first = 0; first < row.depth; first += 64) {
      const int64_t left = row.depth - first;
      const uint64_t all_bits = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
      const T* const a = row.a + first * row.a_step;
      const T* const b = row.b + first * row.b_step;
      for (uint64_t bits = row.include_zeros ? all_bits : row.mask[first / 64]; bits;
           bits &= bits - 1) {
        const int64_t l = __builtin_ctzll(bits);
        const V value = V::set(a[l * row.a_step]);
        const T* const from = b + l * row.b_step;
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) {
          total[j] = fma(value, V::load(from + j * V::width), total[j]);
        }
      }
    }
    store_row<vectors>(total, row.c, row.columns, epilogue);
  }

  template <int vectors = panel_vectors>
  static void accumulate(const Row& row, const Epilogue<T>& epilogue) {
    if constexpr (vectors > 1) {
      if (row.b_step < vectors * width) return accumulate<vectors - 1>(row, epilogue);
    }
    accumulate_vectors<vectors>(row, epilogue);
  }

  static void accumulate_row(const Row& row, const Epilogue<T>& epilogue) {
    // There is nothing to add, as in the black pixels around a digit.
    if (epilogue.accumulate && !epilogue.bias && !epilogue.relu && !row.include_zeros) {
      uint64_t any = 0;
      for (int64_t word = 0; word * 64 < row.depth; ++word) any |= row.mask[word];
      if (any == 0) return;
    }
    accumulate(row, epilogue);
  }

  void run_rows(const TaskRange& range, const uint64_t* mask, T* scratch) const {
    const int64_t column = range.panel * panel_width;
    for (int64_t block = 0; block < blocks(); ++block) {
      if (!keep_going((range.bottom - range.top) * block_depth)) return;
      const int64_t first = block * block_depth;
      const PackedMatrix<T> packed{min(block_depth, g_.k - first), g_.n, panel_width};
      const bool finite = pack(packed, range.panel, first, scratch);
      Epilogue<T> epilogue;
      epilogue.accumulate = block > 0;
      if (block + 1 == blocks()) {
        epilogue.bias = g_.bias ? g_.bias + column : nullptr;
        epilogue.relu = g_.relu;
      }
      for (int64_t i = range.top; i < range.bottom; ++i) {
        accumulate_row({mask + i * mask_words() + first / 64, packed.depth, !finite,
                        g_.a + i * g_.a_row + first * g_.a_step, g_.a_step, scratch,
                        packed.panel_stride(range.panel), g_.c + i * g_.n + column,
                        packed.panel_columns(range.panel)},
                       epilogue);
      }
    }
  }

  // A square of results at a time is transposed in registers.
  void run_transposed(const TaskRange& range, const uint64_t* mask, T* scratch) const {
    const PackedMatrix<T> packed{g_.k, g_.n, panel_width};
    const int64_t step = packed.panel_stride(range.panel), column = range.panel * panel_width;
    const int64_t columns = packed.panel_columns(range.panel);
    T* const results = scratch + blocks() * block_depth * panel_width;
    const bool finite = pack(packed, range.panel, 0, scratch);
    for (int64_t top = range.top; top < range.bottom; top += width) {
      if (!keep_going(width * packed.depth)) return;
      const int64_t count = min(width, range.bottom - top);
      for (int64_t block = 0; block < blocks(); ++block) {
        const int64_t first = block * block_depth;
        Epilogue<T> epilogue;
        epilogue.accumulate = block > 0;
        for (int64_t i = 0; i < count; ++i) {
          accumulate_row(
              {mask + (top + i) * mask_words() + first / 64, min(block_depth, g_.k - first),
               !finite, g_.a + (top + i) * g_.a_row + first * g_.a_step, g_.a_step,
               scratch + first * step, step, results + i * step, step},
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
          T* const to = g_.c + (column + j + i) * g_.m + top;
          if (count == width) square[i].store(to);
          else square[i].store(to, count);
        }
      }
    }
  }

  Gemm<T> g_;
  bool transpose_c_;
};

}  // namespace chainrule::CR_ISA
