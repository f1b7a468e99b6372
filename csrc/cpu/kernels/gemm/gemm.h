// Blocked GEMM: c (m, n) = a (m, k) · b (k, n) with one epilogue. The shape selects one of three
// algorithms:
//
// parallel_n     Few rows and many columns, as in a layer wider than its batch. A task packs a
//                panel of b and multiplies all rows by it. b is read once, and the packed panel
//                stays in the L2 cache.
// split_k        A small result of long sums, as in a layer with few outputs and many inputs. A
//                task sums over its part of the depth. Then the partial results are added in order.
// packed_panels  All other shapes. All threads pack a block of b, then all threads multiply by it.
//
// A block of the depth has at most 1024 terms, and at most 128 blocks are added in order. Longer
// sums are split into parts, whose results are added pairwise.
#pragma once

#include "cpu/kernels/gemm/packing.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

template <class T>
struct Gemm {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_step;  // element (i, k) of a is a[i * a_row + k * a_step]
  const T* b;
  int64_t b_stride;
  bool b_transposed;
  T* c;
  const T* bias = nullptr;
  bool relu = false;

  // The depth of a part.
  static constexpr int64_t max_part_depth = int64_t{1} << 16;

  int64_t workspace_size(int workers) const {
    if (parts() > 1) return parts_workspace_size(workers);
    if (uses_parallel_n()) return bytes(a_copy_size() + workers * panel_size());
    if (splits() > 1) return bytes(splits() * partial_size() + workers * split_scratch_size());
    return bytes(packed_panels_size(workers, block_depth()));
  }

  void run(const Workspace& workspace) const {
    if (m == 0 || n == 0) return;  // k may be as large as 2^60 then
    if (parts() > 1) return run_parts(workspace);
    if (uses_parallel_n()) return run_parallel_n(workspace);
    if (splits() > 1) return run_split_k(workspace);
    run_packed_panels(workspace);
  }

  int64_t panels() const { return ceil_div(n, tile_columns<T>); }
  int64_t cycles(int64_t depth) const { return m * n * depth / Vec<T>::width / 2; }
  // Packs one panel of b, from row `first` on.
  void pack(const PackedMatrix<T>& packed, int64_t panel, int64_t first, T* target) const {
    const T* const source = b + (b_transposed ? first : first * b_stride);
    pack_panel(source, b_stride, b_transposed, packed, panel, 0, packed.depth, target);
  }
  // Sets c to the sum of `count` partial results, which are `step` apart, and applies the epilogue.
  void add_partials(const T* partials, int64_t step, int64_t count, int workers) const {
    parallel_for(m, m * n * count / Vec<T>::width, workers, [&](int64_t row, int) {
      for_each_vector<T>(n, [&](int64_t j, auto lanes) {
        Vec<T> total = sum_partials(partials + row * n + j, count, step, lanes);
        if (bias) total = total + lanes.load(bias + j);
        if (relu) total = select(total <= Vec<T>::zero(), Vec<T>::zero(), total);
        lanes.store(total, c + row * n + j);
      });
    });
  }

 private:
  static int64_t bytes(int64_t size) { return size * static_cast<int64_t>(sizeof(T)); }

  // A block of a (block_rows x depth) stays in the L2 cache with one panel of b (128 kB in float32
  // with AVX-512). If b is narrow, all its panels stay there, and blocks may be deeper. The depth
  // is split evenly. A thin last block would not be worth its pass over c: 784 is 392 and 392.
  static constexpr int64_t min_depth = 512, max_depth = 1024, cached_b_bytes = 512 << 10;
  int64_t max_block_depth() const {
    const int64_t fit = cached_b_bytes / bytes(max(1, n));
    return min(max_depth, max(min_depth, fit));
  }
  int64_t block_depth() const { return even_depth(max_block_depth()); }
  int64_t even_depth(int64_t limit) const { return ceil_div(k, max(1, ceil_div(k, limit))); }

  // Rows of a whose distance is a multiple of aliasing_bytes use few sets of the L1 cache. They are
  // copied to padded rows first.
  static constexpr int64_t aliasing_bytes = 1024, line_padding = 16;
  bool copies_a() const {
    const int64_t distance = a_step == 1 ? a_row : a_step;
    return n > tile_columns<T> && bytes(distance) % aliasing_bytes == 0;
  }

  // The layout of a for the microkernel: element (i, l) is data[i * row + l * step].
  struct AView {
    const T* data;
    int64_t row, step;
  };
  // The part of a from element (top, first) on.
  AView a_view(int64_t top, int64_t first) const {
    return {a + top * a_row + first * a_step, a_row, a_step};
  }
  // The view of a padded copy of up to rows x depth elements.
  AView copy_view(T* copy, int64_t rows, int64_t depth) const {
    if (a_step == 1) return {copy, depth + line_padding, 1};
    return {copy, 1, rows + line_padding};
  }
  static int64_t copy_size(int64_t rows, int64_t depth) {
    return max(rows * (depth + line_padding), depth * (rows + line_padding));
  }
  // Copies lines [begin, end). A line is a row of a, or a column of a if a is transposed.
  void copy_lines(const AView& from, const AView& to, int64_t rows, int64_t depth, int64_t begin,
                  int64_t end) const {
    const bool by_rows = a_step == 1;
    const int64_t length = by_rows ? depth : rows;
    for (int64_t line = begin; line < end; ++line) {
      const T* const source = from.data + line * (by_rows ? from.row : from.step);
      T* const target = const_cast<T*>(to.data) + line * (by_rows ? to.row : to.step);
      for (int64_t i = 0; i < length; ++i) target[i] = source[i];
    }
  }

  // Multiplies `rows` rows of a by one panel of b. The block of b begins at row `first`, and the
  // rows of the panel are `step` apart.
  void multiply_panel(const AView& from, int64_t rows, const PackedMatrix<T>& packed,
                      const T* right, int64_t step, int64_t panel, int64_t first, T* target) const {
    const int64_t column = panel * tile_columns<T>;
    const Segments segments{1, packed.depth, from.step, 0, step, 0};
    Epilogue<T> epilogue;
    epilogue.accumulate = first > 0;
    if (first + packed.depth == k) {
      epilogue.bias = bias ? bias + column : nullptr;
      epilogue.relu = relu;
    }
    for (int64_t i = 0; i < rows; i += tile_rows) {
      const int tile = static_cast<int>(min(tile_rows, rows - i));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile_rows; ++r) {
        const int64_t row = i + min(r, tile - 1);
        a_rows[r] = from.data + row * from.row;
        c_rows[r] = target + row * n + column;
      }
      microkernel(a_rows, right, c_rows, tile, packed.panel_columns(panel), segments, epilogue);
    }
  }

  // Calls f(first, depth) for every block of the depth. If k = 0, f is called once, because the
  // product is then zero.
  template <class F>
  void for_each_block(int64_t depth, F f) const {
    int64_t first = 0;
    do {
      f(first, min(depth, k - first));
      first += depth;
    } while (first < k);
  }

  static constexpr int64_t max_few_rows = 256, min_many_panels = 8;
  bool uses_parallel_n() const {
    return m <= max_few_rows && panels() >= min_many_panels && k <= max_part_depth;
  }
  int64_t a_copy_size() const {
    return copies_a() ? round_up(copy_size(m, even_depth(max_depth)), 16) : 0;
  }
  int64_t panel_size() const { return round_up(even_depth(max_depth) * tile_columns<T>, 16); }

  void run_parallel_n(const Workspace& workspace) const {
    T* const copy = static_cast<T*>(workspace.data);
    T* const worker_scratch = copy + a_copy_size();
    for_each_block(even_depth(max_depth), [&](int64_t first, int64_t depth) {
      AView from = a_view(0, first);
      if (copies_a()) {
        const AView to = copy_view(copy, m, depth);
        const int64_t lines = a_step == 1 ? m : depth;
        parallel_for(lines, m * depth, workspace.workers, [&, from](int64_t line, int) {
          copy_lines(from, to, m, depth, line, line + 1);
        });
        from = to;
      }
      parallel_for(panels(), cycles(depth), workspace.workers, [&](int64_t panel, int worker) {
        const PackedMatrix<T> packed{depth, n};
        T* const right = worker_scratch + worker * panel_size();
        pack(packed, panel, first, right - packed.panel_offset(panel));
        multiply_panel(from, m, packed, right, packed.panel_stride(panel), panel, first, c);
      });
    });
  }

  static constexpr int64_t max_splits = 16, min_split_depth = 512, max_split_result = 64 << 10;
  int64_t splits() const {
    if (m * n > max_split_result) return 1;
    return max(max(1, min(max_splits, k / min_split_depth)), ceil_div(k, max_part_depth));
  }
  int64_t partial_size() const { return round_up(m * n, 16); }
  // A split may have deeper blocks than a longer one: 1025 becomes three blocks of 342, and 512 is
  // one block.
  int64_t split_scratch_size() const {
    return packed_panels_size(1, min(max_block_depth(), ceil_div(k, splits())));
  }

  void run_split_k(const Workspace& workspace) const {
    T* const partials = static_cast<T*>(workspace.data);
    T* const worker_scratch = partials + splits() * partial_size();
    parallel_for(splits(), cycles(k), workspace.workers, [&](int64_t split, int worker) {
      const int64_t first = split * k / splits();
      Gemm part = *this;
      part.k = (split + 1) * k / splits() - first;
      part.a = a_view(0, first).data;
      part.b = b + (b_transposed ? first : first * b_stride);
      part.c = partials + split * partial_size();
      part.bias = nullptr;
      part.relu = false;
      part.run_packed_panels({worker_scratch + worker * split_scratch_size(), 1});
    });
    add_partials(partials, partial_size(), splits(), workspace.workers);
  }

  // Parts of the depth that are computed one after the other. A small result has splits instead.
  int64_t parts() const { return m * n > max_split_result ? ceil_div(k, max_part_depth) : 1; }
  // The product over part `index`, without bias and ReLU.
  Gemm part(int64_t index) const {
    const int64_t first = index * k / parts();
    Gemm of = *this;
    of.k = (index + 1) * k / parts() - first;
    of.a = a_view(0, first).data;
    of.b = b + (b_transposed ? first : first * b_stride);
    of.bias = nullptr;
    of.relu = false;
    return of;
  }
  int64_t subtotals_size() const { return Subtotals<T>::levels(parts()) * round_up(m * n, 16); }
  int64_t parts_workspace_size(int workers) const {
    Gemm shorter = *this, longer = *this;
    shorter.k = k / parts();
    longer.k = ceil_div(k, parts());
    return bytes(subtotals_size()) +
           max(shorter.workspace_size(workers), longer.workspace_size(workers));
  }

  void run_parts(const Workspace& workspace) const {
    T* const buffers = static_cast<T*>(workspace.data);
    const Subtotals<T> subtotals(buffers, round_up(m * n, 16));
    const Workspace rest{buffers + subtotals_size(), workspace.workers};
    const int64_t last = parts() - 1;
    for (int64_t index = 0; index < last; ++index) {
      part(index).run(rest);
      parallel_for(m, m * n, workspace.workers,
                   [&](int64_t row, int) { subtotals.push(index, c, row * n, (row + 1) * n); });
    }
    part(last).run(rest);
    parallel_for(m, m * n, workspace.workers,
                 [&](int64_t row, int) { subtotals.add_to(last, c, row * n, (row + 1) * n); });
    if (bias || relu) add_partials(c, 0, 1, workspace.workers);  // the epilogue
  }

  static constexpr int64_t block_rows = 8 * tile_rows, block_panels = 4;
  // If there are few blocks, they are made smaller. Three blocks would occupy two threads for the
  // time of four.
  bool few_blocks() const { return ceil_div(m, block_rows) * ceil_div(panels(), block_panels) < 8; }
  // A small b is not packed if its rows are full vectors. The microkernel reads the same lines.
  static constexpr int64_t max_unpacked_bytes = 256 << 10;
  bool packs_b() const {
    return b_transposed || n % Vec<T>::width != 0 || bytes(k * n) > max_unpacked_bytes ||
           m > max_few_rows;
  }
  int64_t packed_panels_size(int workers, int64_t depth) const {
    const int64_t packed_b = round_up(PackedMatrix<T>{depth, n}.size(), 16);
    return packed_b + (copies_a() ? workers * block_copy_size(depth) : 0);
  }
  static int64_t block_copy_size(int64_t depth) {
    return round_up(copy_size(block_rows, depth), 16);
  }

  // The order of a worker's blocks. In row order they have the same rows and read all of b. This
  // order is taken if b is not larger than a and c. In column order they read all of a, and c is
  // left in the wrong cache for the next operation, whose workers have rows. If the CPUs share no
  // cache, LeNet's step takes 2.02 ms, and 2.1 ms with column order everywhere.
  bool uses_row_order() const { return few_blocks() && n * k <= m * k + m * n; }

  void run_packed_panels(const Workspace& workspace) const {
    T* const packed_b = static_cast<T*>(workspace.data);
    T* const copies = packed_b + packed_panels_size(0, block_depth());
    const int64_t rows = few_blocks() ? 2 * tile_rows : block_rows;
    const int64_t group = few_blocks() ? 1 : block_panels;
    for_each_block(block_depth(), [&](int64_t first, int64_t depth) {
      const PackedMatrix<T> packed{depth, n};
      if (packs_b()) {
        parallel_for(panels(), depth * n, workspace.workers,
                     [&](int64_t panel, int) { pack(packed, panel, first, packed_b); });
      }
      const int64_t down = ceil_div(m, rows), across = ceil_div(panels(), group);
      parallel_for(down * across, cycles(depth), workspace.workers, [&](int64_t index, int worker) {
        const int64_t top = (uses_row_order() ? index / across : index % down) * rows,
                      count = min(rows, m - top);
        AView from = a_view(top, first);
        if (copies_a()) {
          const AView to =
              copy_view(copies + worker * block_copy_size(block_depth()), count, depth);
          copy_lines(from, to, count, depth, 0, a_step == 1 ? count : depth);
          from = to;
        }
        const int64_t begin = (uses_row_order() ? index % across : index / down) * group,
                      end = min(begin + group, panels());
        for (int64_t panel = begin; panel < end; ++panel) {
          const T* const right = packs_b() ? packed_b + packed.panel_offset(panel)
                                           : b + first * b_stride + panel * tile_columns<T>;
          multiply_panel(from, count, packed, right,
                         packs_b() ? packed.panel_stride(panel) : b_stride, panel, first,
                         c + top * n);
        }
      });
    });
  }
};

// Adds up rows [0, rows) of `vectors` vectors, in parts.
template <class T, int vectors, class Lanes>
void column_sums_block(const T* source, int64_t rows, int64_t columns, Lanes lanes, Vec<T>* total) {
  if (rows > max_part_terms) {
    if (rows > row_part / 16 && !keep_going(rows)) {
      for (int v = 0; v < vectors; ++v) total[v] = Vec<T>::zero();
      return;
    }
    const int64_t half = ceil_div(ceil_div(rows, max_part_terms), 2) * max_part_terms;
    Vec<T> second[vectors];
    column_sums_block<T, vectors>(source, half, columns, lanes, total);
    column_sums_block<T, vectors>(source + half * columns, rows - half, columns, lanes, second);
    for (int v = 0; v < vectors; ++v) total[v] = total[v] + second[v];
    return;
  }
  Vec<T> sum[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) sum[v] = Vec<T>::zero();
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      sum[v] = sum[v] + lanes.load(source + i * columns + v * Vec<T>::width);
    }
  }
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) total[v] = sum[v];
}

template <class T, int vectors, class Lanes>
CR_INLINE void column_sums_vectors(const T* source, int64_t rows, int64_t columns, Lanes lanes,
                                   T* target) {
  Vec<T> total[vectors];
  column_sums_block<T, vectors>(source, rows, columns, lanes, total);
#pragma GCC unroll 8
  for (int v = 0; v < vectors; ++v) lanes.store(total[v], target + v * Vec<T>::width);
}

// target[j] = Σ_i source[i * columns + j]. This is the gradient of a bias. Eight
// vectors of a row are summed at a time. With one vector, a backward pass took 196 us in place of
// 102 us (1 input, 2048 outputs, batch 128; Zen 5, one thread).
template <class T>
void column_sums(const T* source, int64_t rows, int64_t columns, T* target) {
  constexpr int vectors = 8;
  constexpr int64_t block = vectors * Vec<T>::width;
  parallel_for_ranges(
      columns, block, block, max(1, rows / Vec<T>::width), [&](int64_t begin, int64_t end) {
        int64_t j = begin;
        for (; j + block <= end; j += block) {
          column_sums_vectors<T, vectors>(source + j, rows, columns, FullVector(), target + j);
        }
        for_each_vector<T>(end - j, [&](int64_t at, auto lanes) {
          column_sums_vectors<T, 1>(source + j + at, rows, columns, lanes, target + j + at);
        });
      });
}

}  // namespace chainrule::CR_ISA
