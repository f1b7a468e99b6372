// The two GEMM microkernels: a tile of c = a · b in registers. They are two of the six hot loops of
// the library. The others are in gemm/sparse_gemm.h, conv/few_channels.h, conv/sparse_backward.h
// and conv/sparse_backward_2x2.h.
//
//   wide tile     tile_rows x (1 .. tile_vectors vectors)
//   registers     accumulators + one row of b + one broadcast of a, see the static_assert below
//   narrow tile   for at most narrow_vectors vectors of columns, see NarrowTile
//
// a is not packed. The wide tile reads it through one pointer per row and one step between the
// elements of a row. A matrix, its transpose and the pixels under a sliding window differ only in
// these, so convolution is an implicit GEMM (no im2col). b is packed into panels, see packing.h.
//
// The sum runs over segments: `count` segments of `length` elements, a_stride and b_stride apart. A
// matrix product has one segment. A convolution has one per row of its window, because the pixels
// of a window row and their channels are contiguous.
#pragma once

#include "core/shape.h"
#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

constexpr int tile_rows = 6;
constexpr int tile_vectors = CR_REGISTERS == 32 ? 4 : 2;
static_assert(tile_rows * tile_vectors + tile_vectors + 1 <= CR_REGISTERS);

template <class T>
constexpr int tile_columns = tile_vectors * Vec<T>::width;

struct Segments {
  int64_t count, length;
  int64_t a_step, a_stride;
  int64_t b_step, b_stride;
};

// The last step of a tile, before it is stored.
template <class T>
struct Epilogue {
  const T* bias = nullptr;  // of the tile's columns
  bool accumulate = false;  // add to the old value of c
  bool relu = false;
};

// Applies the epilogue to one row of a tile and stores it.
template <int vectors, class T>
CR_INLINE void store_row(const Vec<T>* row, T* c, int64_t columns, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int width = V::width;
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) {
    const int64_t left = columns - j * width;
    T* const target = c + j * width;
    V value = row[j];
    if (left >= width) {
      if (epilogue.accumulate) value = value + V::load(target);
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width);
      if (epilogue.relu) value = select(value <= V::zero(), V::zero(), value);
      value.store(target);
    } else if (left > 0) {
      if (epilogue.accumulate) value = value + V::load(target, left, T(0));
      if (epilogue.bias) value = value + V::load(epilogue.bias + j * width, left, T(0));
      if (epilogue.relu) value = select(value <= V::zero(), V::zero(), value);
      value.store(target, left);
    }
  }
}

// Computes c[i][0 .. columns) for i in [0, rows). The pointers of rows past `rows` must repeat the
// last row. These rows are not stored.
template <int vectors, class T>
void microkernel(const T* const* a, const T* b, T* const* c, int rows, int64_t columns,
                 const Segments& s, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int width = V::width;
  V accumulator[tile_rows][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < tile_rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      accumulator[i][j] = V::zero();
      // Prefetch c for the store. Together with fewer passes over c (gemm.h) this gains 4 % on a
      // product of 1024 rows, and 8 % on 4096 x 4096 sums over 128.
      __builtin_prefetch(c[i] + j * width, 1);
    }
  }
  for (int64_t segment = 0; segment < s.count; ++segment) {
    const T* row[tile_rows];
#pragma GCC unroll 8
    for (int i = 0; i < tile_rows; ++i) row[i] = a[i] + segment * s.a_stride;
    const T* b_row = b + segment * s.b_stride;
    int64_t offset = 0;
    for (int64_t k = 0; k < s.length; ++k) {
      V right[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) right[j] = V::load(b_row + j * width);
#pragma GCC unroll 8
      for (int i = 0; i < tile_rows; ++i) {
        const V left = V::set(row[i][offset]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j)
          accumulator[i][j] = fma(left, right[j], accumulator[i][j]);
      }
      offset += s.a_step;
      b_row += s.b_step;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < tile_rows; ++i) {
    if (i >= rows) break;
    store_row<vectors>(accumulator[i], c[i], columns, epilogue);
  }
}

// Uses as many vectors per row as `columns` need.
template <class T>
CR_INLINE void microkernel(const T* const* a, const T* b, T* const* c, int rows, int64_t columns,
                           const Segments& s, const Epilogue<T>& epilogue) {
  switch (ceil_div(columns, Vec<T>::width)) {
    case 1:
      return microkernel<1>(a, b, c, rows, columns, s, epilogue);
    case 2:
      return microkernel<2>(a, b, c, rows, columns, s, epilogue);
    case 3:
      if constexpr (tile_vectors > 2) {
        return microkernel<3>(a, b, c, rows, columns, s, epilogue);
      }
      [[fallthrough]];
    default:
      if constexpr (tile_vectors > 2) {
        return microkernel<4>(a, b, c, rows, columns, s, epilogue);
      }
  }
}

constexpr int narrow_vectors = 2;
template <int vectors>
constexpr int narrow_rows = CR_REGISTERS == 32 ? (vectors == 1 ? 14 : 12) : (vectors == 1 ? 10 : 5);

// A tall tile for few columns: one or two vectors wide, with as many rows as there are registers.
//
//   rows x columns     14 x 16 or 12 x 32 with 32 registers (float32, AVX-512)
//                      10 x 8 or 5 x 16 with 16 registers
//
// The wide tile has six rows, so with one vector per row only six multiply-adds are in flight. Two
// per cycle with a latency of four cycles need eight. The wide tile also spends too much time in
// its prologue and epilogue. Three rows share one pointer, which x86 can address. Fourteen pointers
// would not fit the general registers. The rows of a group have the same distance, and so have the
// groups. Tried without success: 28 x 16, whose ten pointers spill (LeNet's first layer 2.5 times
// slower).
template <class T>
struct NarrowTile {
  const T* a;
  int64_t a_row;    // from one row of a group to the next
  int64_t a_group;  // from one group of three rows to the next
  const T* b;
  T* c;
  int64_t c_row;
  int64_t columns;
};

template <int rows, int vectors, class T>
void narrow_microkernel(const NarrowTile<T>& tile, const Segments& s, const Epilogue<T>& epilogue) {
  using V = Vec<T>;
  constexpr int pointers = (rows + 2) / 3;
  V accumulator[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) {
      accumulator[i][j] = V::zero();
      __builtin_prefetch(tile.c + i * tile.c_row + j * V::width, 1);  // as in microkernel()
    }
  }
  const int64_t a_row = tile.a_row;
  for (int64_t segment = 0; segment < s.count; ++segment) {
    const T* row[pointers];
#pragma GCC unroll 8
    for (int p = 0; p < pointers; ++p) {
      row[p] = tile.a + segment * s.a_stride + p * tile.a_group;
    }
    const T* b_row = tile.b + segment * s.b_stride;
    for (int64_t k = 0; k < s.length; ++k) {
      V right[vectors];
#pragma GCC unroll 2
      for (int j = 0; j < vectors; ++j) right[j] = V::load(b_row + j * V::width);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const V left = V::set(row[i / 3][i % 3 * a_row]);
#pragma GCC unroll 2
        for (int j = 0; j < vectors; ++j)
          accumulator[i][j] = fma(left, right[j], accumulator[i][j]);
      }
#pragma GCC unroll 8
      for (int p = 0; p < pointers; ++p) row[p] += s.a_step;
      b_row += s.b_step;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    store_row<vectors>(accumulator[i], tile.c + i * tile.c_row, tile.columns, epilogue);
  }
}

template <class T>
using NarrowMicrokernel = void (*)(const NarrowTile<T>&, const Segments&, const Epilogue<T>&);

// Returns the instance for `requested` rows, which must be at most narrow_rows<vectors>.
template <class T, int vectors, int rows = narrow_rows<vectors>>
NarrowMicrokernel<T> narrow_instance(int64_t requested) {
  if (rows == requested) return narrow_microkernel<rows, vectors, T>;
  if constexpr (rows > 1) return narrow_instance<T, vectors, rows - 1>(requested);
  return nullptr;
}

// A GEMM of `length` rows, which are a_row apart, in narrow tiles of about equal height: 28 is 14
// and 14, 26 is 13 and 13. a_group must be 3 * a_row unless all rows fit one tile.
template <class T>
class NarrowGemm {
 public:
  NarrowGemm(int64_t length, int64_t columns) : length_(length) {
    const bool one = columns <= Vec<T>::width;
    const int64_t max_rows = one ? narrow_rows<1> : narrow_rows<2>;
    rows_ = max(1, ceil_div(length, max(1, ceil_div(length, max_rows))));
    const int64_t last_rows = length % rows_;
    tile_ = one ? narrow_instance<T, 1>(rows_) : narrow_instance<T, 2>(rows_);
    last_ = one ? narrow_instance<T, 1>(last_rows) : narrow_instance<T, 2>(last_rows);
  }

  void multiply(NarrowTile<T> tile, const Segments& s, const Epilogue<T>& epilogue) const {
    const int64_t depth = max(1, s.count * s.length);
    const int64_t rows_per_part = max(1, min(max_rows_per_part, row_part / depth) / rows_) * rows_;
    for (int64_t begin = 0; begin < length_; begin += rows_per_part) {
      if (begin > 0 && !keep_going(rows_per_part * depth)) return;
      const int64_t end = min(length_, begin + rows_per_part);
      for (int64_t i = begin; i < end; i += rows_) {
        (length_ - i < rows_ ? last_ : tile_)(tile, s, epilogue);
        tile.a += rows_ * tile.a_row;
        tile.c += rows_ * tile.c_row;
      }
    }
  }

 private:
  static constexpr int64_t max_rows_per_part = 2048;

  int64_t length_, rows_;
  NarrowMicrokernel<T> tile_, last_;
};

}  // namespace chainrule::CR_ISA
