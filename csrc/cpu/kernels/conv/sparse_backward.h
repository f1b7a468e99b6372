// The loop of a convolution's backward passes over a sparse gradient. A filter row has columns *
// channels contiguous elements. The pixels under it are contiguous too, and are called an input row
// here. With g the gradient of filter k at a pixel, the passes are
//
//   weight    filter row (k, r) of dweight += g · input row, over the pixels of a filter
//   input     input row of dx += g · filter row (k, r), over the filters of a pixel
//
// A block of target rows is held in registers while the gradients that add to it are processed: 3
// rows of 6 vectors for 3 x 3 x 32. A nonzero mask selects these gradients. Each gradient loads as
// many vectors as it multiplies, so the source must be in the L1 cache.
#pragma once

#include "cpu/kernels/conv/implicit_gemm.h"
#include "cpu/kernels/long_sums.h"

namespace chainrule::CR_ISA {

constexpr int max_accumulators = CR_REGISTERS == 32 ? 24 : 12;
// There is an instance for every pair of rows and vectors within these limits. If a vector has one
// lane, more instances would only make the library larger.
constexpr int max_block_rows = CR_VECTOR_BYTES == 0 ? 1 : 5;
constexpr int max_block_vectors = CR_VECTOR_BYTES == 0 ? 4 : 8;

// The meaning of the bits of a mask. Here bit i is filter i, at one position of one pooling window.
template <class T>
struct FilterMask {
  const T* g;
  int64_t filter_stride;  // from the rows of one filter to those of the next

  CR_INLINE T value(int64_t i) const { return g[i]; }
  CR_INLINE int64_t offset(int64_t i) const { return i * filter_stride; }
};
// Here bit i is pooling window i of a band, for one filter.
template <class T>
struct WindowMask {
  const T* g;
  const uint16_t* argmax;
  int64_t step;  // of g and argmax, from one window to the next
  const int64_t* window_offsets;
  const int64_t* argmax_offsets;
  // The last index of argmax_offsets, whose size is a power of two. Another thread may write to
  // argmax after its check. With the mask such a value reads inside the table. A comparison would
  // take another register.
  int64_t argmax_mask;

  CR_INLINE T value(int64_t i) const { return g[i * step]; }
  CR_INLINE int64_t offset(int64_t i) const {
    const int64_t position = __atomic_load_n(argmax + i * step, __ATOMIC_RELAXED);
    return window_offsets[i] + argmax_offsets[position & argmax_mask];
  }
};

// A block of target rows, to which Σ value · source[offset ...] is added over the elements of the
// mask. All of the last vector of each row is read, but only its first `lanes` lanes are stored.
template <class T, class Mask>
struct AxpyBlock {
  T* target;
  int64_t target_row_stride;
  const T* source;
  int64_t source_row_stride;
  const uint64_t* mask;
  int64_t mask_words;
  Mask elements;
  int64_t lanes = 0;
};

template <int rows, int vectors, class T, class Mask>
void axpy_block(const AxpyBlock<T, Mask>& block) {
  using V = Vec<T>;
  V total[rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      total[r][j] = V::load(block.target + r * block.target_row_stride + j * V::width);
    }
  }
  const int64_t source_row_stride = block.source_row_stride;
  const T* const source = block.source;
  const Mask elements = block.elements;
  for (int64_t word = 0; word < block.mask_words; ++word) {
    for (uint64_t bits = block.mask[word]; bits != 0; bits &= bits - 1) {
      const int64_t i = 64 * word + __builtin_ctzll(bits);
      const V value = V::set(elements.value(i));
      const T* from = source + elements.offset(i);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r, from += source_row_stride) {
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) {
          total[r][j] = fma(value, V::load(from + j * V::width), total[r][j]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    T* const to = block.target + r * block.target_row_stride;
#pragma GCC unroll 8
    for (int j = 0; j < vectors - 1; ++j) total[r][j].store(to + j * V::width);
    T* const end = to + (vectors - 1) * V::width;
    if (block.lanes == V::width) total[r][vectors - 1].store(end);
    else total[r][vectors - 1].store(end, block.lanes);
  }
}

template <class T, class Mask>
using AxpyBlockFunction = void (*)(const AxpyBlock<T, Mask>&);

// Returns the instance for this number of rows and of vectors per row. Both are within the limits
// above.
template <class T, class Mask, int rows = max_block_rows, int vectors = max_block_vectors>
AxpyBlockFunction<T, Mask> axpy_block_instance(int64_t requested_rows, int64_t requested_vectors) {
  if constexpr (rows * vectors <= max_accumulators) {
    if (rows == requested_rows && vectors == requested_vectors)
      return axpy_block<rows, vectors, T, Mask>;
  }
  if constexpr (vectors > 1) {
    return axpy_block_instance<T, Mask, rows, vectors - 1>(requested_rows, requested_vectors);
  } else if constexpr (rows > 1) {
    return axpy_block_instance<T, Mask, rows - 1>(requested_rows, requested_vectors);
  } else {
    return nullptr;
  }
}

// Adds to any number of rows of any length, block by block.
template <class T, class Mask>
class RowAccumulator {
 public:
  RowAccumulator(int64_t rows, int64_t length) : rows_(rows), length_(length) {
    const int64_t vectors = max(1, ceil_div(length, V::width));
    block_rows_ =
        min(min(rows, max_block_rows), max_accumulators / min(vectors, max_block_vectors));
    for (int last_rows = 0; last_rows < 2; ++last_rows) {
      for (int last = 0; last < 2; ++last) {
        const int64_t r = last_rows ? rows % block_rows_ : block_rows_;
        const int64_t v =
            last ? (vectors - 1) % max_block_vectors + 1 : min(vectors, max_block_vectors);
        axpy_[last_rows][last] = r > 0 ? axpy_block_instance<T, Mask>(r, v) : nullptr;
      }
    }
  }

  void add(AxpyBlock<T, Mask> block) const {
    uint64_t any = 0;
    for (int64_t word = 0; word < block.mask_words; ++word) any |= block.mask[word];
    if (any == 0) return;
    constexpr int64_t step = max_block_vectors * V::width;
    for (int64_t left = length_; left > 0; left -= step) {
      const bool last = left <= step;
      block.lanes = last ? left - (ceil_div(left, V::width) - 1) * V::width : V::width;
      AxpyBlock<T, Mask> part = block;
      for (int64_t r = 0; r < rows_; r += block_rows_) {
        axpy_[rows_ - r < block_rows_][last](part);
        part.target += block_rows_ * block.target_row_stride;
        part.source += block_rows_ * block.source_row_stride;
      }
      block.target += step;
      block.source += step;
    }
  }

 private:
  using V = Vec<T>;
  int64_t rows_, length_, block_rows_;
  AxpyBlockFunction<T, Mask> axpy_[2][2];
};

constexpr int64_t l1_bytes = 28 << 10;

// Terms that are added in order. With 2048 the weight gradient of 28 x 28 pixels in a batch of 128
// has one subtotal per chunk.
constexpr int64_t max_sparse_terms = 2 * max_part_terms;

// Returns the filters of one pass of backward input. A pixel has at most one term per filter and
// tap in it.
inline int64_t sparse_pass_filters(const Conv2d& s) {
  return max(1, min(s.out, max_sparse_terms / (s.window.rows * s.window.columns)));
}

// Sizes for these passes, in elements if not stated otherwise.
template <class T>
struct SparseShape {
  int64_t filter_row, padded_filter_row;  // without and with padding to full vectors
  WindowAxis rows, columns;               // their copy has the border
  int64_t input_row;
  int64_t padded_image;  // the copy with its border, and what vectors may read after it

  explicit SparseShape(const Conv2d& s) {
    filter_row = s.window.columns * s.in;
    padded_filter_row = round_up(filter_row, Vec<T>::width);
    rows = {s.window.rows, s.window.stride_rows, s.out_height};
    columns = {s.window.columns, s.window.stride_columns, s.out_width};
    input_row = columns.copy_length() * s.in;
    padded_image = round_up(rows.copy_length() * input_row + padded_filter_row, 16);
  }
};

// Returns the offset of the first pixel under the filters at output (row, column) of the
// convolution.
template <class T>
int64_t window_offset(const Conv2d& s, const SparseShape<T>& shape, int64_t row, int64_t column) {
  return row * shape.rows.copy_stride() * shape.input_row +
         column * shape.columns.copy_stride() * s.in;
}

// Returns the number of rows of each filter that fit the L1 cache together.
template <class T>
int64_t filter_rows_per_pass(const Conv2d& s, const SparseShape<T>& shape) {
  const int64_t bytes = max(1, s.out * shape.padded_filter_row * static_cast<int64_t>(sizeof(T)));
  return min(s.window.rows, max(1, l1_bytes / bytes));
}

// The layout of packed filters: (groups of rows, filters, rows of the group, filter row). Each
// filter row has `before` zeros before it, and is padded with zeros after it.
template <class T>
struct PackedFilterRows {
  int64_t group_rows;
  int64_t before, step;  // step is from one filter row to the next

  int64_t size(const Conv2d& s) const { return round_up(s.window.rows * s.out * step, 16); }
  // The offset of the first filter row in the group that begins with row `first`.
  int64_t offset(const Conv2d& s, int64_t first) const { return first * s.out * step + before; }
  // From the rows of one filter to those of the next in that group.
  int64_t filter_stride(const Conv2d& s, int64_t first) const {
    return min(group_rows, s.window.rows - first) * step;
  }

  // Packs filter k.
  void pack(const T* weight, int64_t k, const Conv2d& s, T* packed) const {
    const int64_t rows = s.window.rows, filter_row = s.window.columns * s.in;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t first = r / group_rows * group_rows;
      T* const to =
          packed + offset(s, first) - before + k * filter_stride(s, first) + (r - first) * step;
      const T* const from = weight + (k * rows + r) * filter_row;
      for (int64_t i = 0; i < step; ++i) to[i] = T(0);
      for (int64_t i = 0; i < filter_row; ++i) to[before + i] = from[i];
    }
  }
};
template <class T>
PackedFilterRows<T> packed_filter_rows(const Conv2d& s, const SparseShape<T>& shape) {
  return {filter_rows_per_pass(s, shape), 0, shape.padded_filter_row};
}

}  // namespace chainrule::CR_ISA
