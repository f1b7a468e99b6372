// c (m, n) = a (m, k) · b (k, n) with one epilogue: the loops around the tile of gemm.h, on one of
// three roads, chosen by the shape:
//
// by_columns  few rows, many columns, as a layer wider than its batch: a task packs a sliver of b
//             for itself and multiplies all rows by it, so b is read once and its copy never leaves
//             the second-level cache
// in_chunks   a small result of long sums, as a layer of few neurons behind many: a task sums over
//             its own part of the depth; then the parts are added in order
// by_panel    all else: a panel of b is packed by all threads, then multiplied by all
#pragma once

#include "cpu/kernels/gemm/packing.h"

namespace chainrule::CR_ISA {

template <class T>
struct Product {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_step;  // element (i, k) of a is a[i * a_row + k * a_step]
  const T* b;
  int64_t b_stride;
  bool b_transposed;
  T* c;
  const T* bias = nullptr;
  bool relu = false;

  int64_t workspace(int workers) const {
    if (few_rows()) return bytes(left_size() + workers * sliver_size());
    if (chunks() > 1) return bytes(chunks() * partial_size() + workers * panel_of_chunk());
    return bytes(panel_size(workers, depth_of_block()));
  }

  void run(const Workspace& lent) const {
    if (m == 0 || n == 0) return;  // the depth may be 2^60
    if (few_rows()) return by_columns(lent);
    if (chunks() > 1) return in_chunks(lent);
    by_panel(lent);
  }

  int64_t slivers() const { return ceil_div(n, tile_columns<T>); }
  int64_t cycles(int64_t depth) const { return m * n * depth / Vec<T>::width / 2; }
  // One sliver of b, from row `first` on.
  void pack(const Packed<T>& packed, int64_t sliver, int64_t first, T* target) const {
    const T* const source = b + (b_transposed ? first : first * b_stride);
    pack_sliver(source, b_stride, b_transposed, packed, sliver, 0, packed.depth, target);
  }
  // c from `count` sums over parts of the depth, `step` apart, in order.
  void add_partials(const T* partials, int64_t step, int64_t count, int workers) const {
    parallel(m, m * n * count / Vec<T>::width, workers, [&](int64_t row, int) {
      for_registers<T>(n, [&](int64_t j, auto lanes) {
        Vec<T> total = sum_of_parts(partials + row * n + j, count, step, lanes);
        if (bias) total = total + lanes.load(bias + j);
        if (relu) total = select(total <= Vec<T>::zero(), Vec<T>::zero(), total);
        lanes.store(total, c + row * n + j);
      });
    });
  }

 private:
  static int64_t bytes(int64_t size) { return size * static_cast<int64_t>(sizeof(T)); }

  // A block of a (block_rows x depth) stays in the second-level cache with one sliver of b (128
  // kB in float32 with AVX-512); of a narrow b all slivers do, so it is cut less often. The depth
  // is cut evenly, lest the last block be too thin to pay for a pass over c: 784 is twice 392.
  static constexpr int64_t least_depth = 512, most_depth = 1024, panel_bytes = 512 << 10;
  int64_t deepest_block() const {
    const int64_t fit = panel_bytes / bytes(larger(1, n));
    return smaller(most_depth, larger(least_depth, fit));
  }
  int64_t depth_of_block() const { return even(deepest_block()); }
  int64_t even(int64_t most) const { return ceil_div(k, larger(1, ceil_div(k, most))); }

  // Rows of a that are a multiple of this apart fall into few sets of the first-level cache; they
  // are copied first, to rows that are not.
  static constexpr int64_t aliasing_bytes = 1024, apart = 16;
  bool copies_a() const {
    const int64_t distance = a_step == 1 ? a_row : a_step;
    return n > tile_columns<T> && bytes(distance) % aliasing_bytes == 0;
  }

  // Where the tile reads a: element (i, l) at data[i * row + l * step].
  struct Left {
    const T* data;
    int64_t row, step;
  };
  // Element (i, l) of `rows` x `depth` from (top, first) on.
  Left left(int64_t top, int64_t first) const {
    return {a + top * a_row + first * a_step, a_row, a_step};
  }
  // A place for a copy of up to rows x depth elements.
  Left place(T* copy, int64_t rows, int64_t depth) const {
    if (a_step == 1) return {copy, depth + apart, 1};
    return {copy, 1, rows + apart};
  }
  static int64_t place_size(int64_t rows, int64_t depth) {
    return larger(rows * (depth + apart), depth * (rows + apart));
  }
  // Lines [begin, end) of a copy: its rows, or what stands for them where a is transposed.
  void copy_lines(const Left& from, const Left& to, int64_t rows, int64_t depth, int64_t begin,
                  int64_t end) const {
    const bool straight = a_step == 1;
    const int64_t length = straight ? depth : rows;
    for (int64_t line = begin; line < end; ++line) {
      const T* const source = from.data + line * (straight ? from.row : from.step);
      T* const target = const_cast<T*>(to.data) + line * (straight ? to.row : to.step);
      for (int64_t i = 0; i < length; ++i) target[i] = source[i];
    }
  }

  // Some rows of c: `from` times one sliver of b, whose rows lie `step` apart and begin at `first`.
  void multiply(const Left& from, int64_t rows, const Packed<T>& packed, const T* right,
                int64_t step, int64_t sliver, int64_t first, T* target) const {
    const int64_t column = sliver * tile_columns<T>;
    const Segments segments{1, packed.depth, from.step, 0, step, 0};
    Epilogue<T> epilogue;
    epilogue.accumulate = first > 0;
    if (first + packed.depth == k) {
      epilogue.bias = bias ? bias + column : nullptr;
      epilogue.relu = relu;
    }
    for (int64_t i = 0; i < rows; i += tile_rows) {
      const int tile = static_cast<int>(smaller(tile_rows, rows - i));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile_rows; ++r) {
        const int64_t row = i + smaller(r, tile - 1);
        a_rows[r] = from.data + row * from.row;
        c_rows[r] = target + row * n + column;
      }
      multiply_tile(a_rows, right, c_rows, tile, packed.sliver_columns(sliver), segments, epilogue);
    }
  }

  // f(first, depth) for every block of the depth; once even for k = 0, whose product is zero.
  template <class F>
  void for_depths(int64_t most, F f) const {
    int64_t first = 0;
    do {
      f(first, smaller(most, k - first));
      first += most;
    } while (first < k);
  }

  static constexpr int64_t most_rows = 256, least_slivers = 8;
  bool few_rows() const { return m <= most_rows && slivers() >= least_slivers; }
  int64_t left_size() const {
    return copies_a() ? round_up(place_size(m, even(most_depth)), 16) : 0;
  }
  int64_t sliver_size() const { return round_up(even(most_depth) * tile_columns<T>, 16); }

  void by_columns(const Workspace& lent) const {
    T* const copy = static_cast<T*>(lent.data);
    T* const own = copy + left_size();
    for_depths(even(most_depth), [&](int64_t first, int64_t depth) {
      Left from = left(0, first);
      if (copies_a()) {
        const Left to = place(copy, m, depth);
        const int64_t lines = a_step == 1 ? m : depth;
        parallel(lines, m * depth, lent.workers,
                 [&, from](int64_t line, int) { copy_lines(from, to, m, depth, line, line + 1); });
        from = to;
      }
      parallel(slivers(), cycles(depth), lent.workers, [&](int64_t sliver, int worker) {
        const Packed<T> packed{depth, n};
        T* const panel = own + worker * sliver_size();
        pack(packed, sliver, first, panel - packed.sliver_offset(sliver));
        multiply(from, m, packed, panel, packed.sliver_step(sliver), sliver, first, c);
      });
    });
  }

  static constexpr int64_t most_chunks = 16, least_chunk = 512, most_result = 64 << 10;
  int64_t chunks() const {
    if (m * n > most_result) return 1;
    return larger(1, smaller(most_chunks, k / least_chunk));
  }
  int64_t partial_size() const { return round_up(m * n, 16); }
  // A part may have deeper blocks than a longer one: 1025 is cut into 342s, 512 is not cut.
  int64_t panel_of_chunk() const {
    return panel_size(1, smaller(deepest_block(), ceil_div(k, chunks())));
  }

  void in_chunks(const Workspace& lent) const {
    T* const partials = static_cast<T*>(lent.data);
    T* const own = partials + chunks() * partial_size();
    parallel(chunks(), cycles(k), lent.workers, [&](int64_t chunk, int worker) {
      const int64_t first = chunk * k / chunks();
      Product part = *this;
      part.k = (chunk + 1) * k / chunks() - first;
      part.a = left(0, first).data;
      part.b = b + (b_transposed ? first : first * b_stride);
      part.c = partials + chunk * partial_size();
      part.bias = nullptr;
      part.relu = false;
      part.by_panel({own + worker * panel_of_chunk(), 1});
    });
    add_partials(partials, partial_size(), chunks(), lent.workers);
  }

  static constexpr int64_t block_rows = 8 * tile_rows, block_slivers = 4;
  // Few blocks are made smaller: three would keep two threads busy for the time of four.
  bool few_blocks() const {
    return ceil_div(m, block_rows) * ceil_div(slivers(), block_slivers) < 8;
  }
  // A small b is read where it lies, if its rows are whole registers: the tile reads no less.
  static constexpr int64_t small_bytes = 256 << 10;
  bool packs_b() const {
    return b_transposed || n % Vec<T>::width != 0 || bytes(k * n) > small_bytes || m > most_rows;
  }
  int64_t panel_size(int workers, int64_t depth) const {
    const int64_t panel = round_up(Packed<T>{depth, n}.size(), 16);
    return panel + (copies_a() ? workers * block_copy_size(depth) : 0);
  }
  static int64_t block_copy_size(int64_t depth) {
    return round_up(place_size(block_rows, depth), 16);
  }

  // Which blocks a worker takes one after the other: those of the same rows, which read all of b,
  // if that is no larger than a and c; else those of the same columns, which read all of a, and
  // leave c where the next operation, whose workers have rows, does not look for it. Where the CPUs
  // share no cache, LeNet's step takes 2.02 ms so, and 2.1 with all by columns.
  bool by_rows() const { return few_blocks() && n * k <= m * k + m * n; }

  void by_panel(const Workspace& lent) const {
    T* const panel = static_cast<T*>(lent.data);
    T* const copies = panel + panel_size(0, depth_of_block());
    const int64_t rows = few_blocks() ? 2 * tile_rows : block_rows;
    const int64_t wide = few_blocks() ? 1 : block_slivers;
    for_depths(depth_of_block(), [&](int64_t first, int64_t depth) {
      const Packed<T> packed{depth, n};
      if (packs_b()) {
        parallel(slivers(), depth * n, lent.workers,
                 [&](int64_t sliver, int) { pack(packed, sliver, first, panel); });
      }
      const int64_t down = ceil_div(m, rows), across = ceil_div(slivers(), wide);
      parallel(down * across, cycles(depth), lent.workers, [&](int64_t index, int worker) {
        const int64_t top = (by_rows() ? index / across : index % down) * rows,
                      count = smaller(rows, m - top);
        Left from = left(top, first);
        if (copies_a()) {
          const Left to = place(copies + worker * block_copy_size(depth_of_block()), count, depth);
          copy_lines(from, to, count, depth, 0, a_step == 1 ? count : depth);
          from = to;
        }
        const int64_t begin = (by_rows() ? index % across : index / down) * wide,
                      end = smaller(begin + wide, slivers());
        for (int64_t sliver = begin; sliver < end; ++sliver) {
          const T* const right = packs_b() ? panel + packed.sliver_offset(sliver)
                                           : b + first * b_stride + sliver * tile_columns<T>;
          multiply(from, count, packed, right, packs_b() ? packed.sliver_step(sliver) : b_stride,
                   sliver, first, c + top * n);
        }
      });
    });
  }
};

template <class T, int vectors, class Lanes>
CR_INLINE void sum_lines(const T* source, int64_t rows, int64_t columns, Lanes lanes, T* target) {
  using V = Vec<T>;
  V total[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) total[v] = V::zero();
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      total[v] = total[v] + lanes.load(source + i * columns + v * V::width);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) lanes.store(total[v], target + v * V::width);
}

// target[j] = Σ_i source[i * columns + j], rows in order: the gradient of a bias. Eight registers
// of a row at a time: with one, a backward pass of 128 x 2048 behind one input took 196 us instead
// of 102 (Zen 5, one thread).
template <class T>
void sum_rows(const T* source, int64_t rows, int64_t columns, T* target) {
  constexpr int vectors = 8;
  constexpr int64_t wide = vectors * Vec<T>::width;
  parallel_ranges(columns, wide, wide, larger(1, rows / Vec<T>::width),
                  [&](int64_t begin, int64_t end) {
                    int64_t j = begin;
                    for (; j + wide <= end; j += wide) {
                      sum_lines<T, vectors>(source + j, rows, columns, Whole(), target + j);
                    }
                    for_registers<T>(end - j, [&](int64_t at, auto lanes) {
                      sum_lines<T, 1>(source + j + at, rows, columns, lanes, target + j + at);
                    });
                  });
}

}  // namespace chainrule::CR_ISA
