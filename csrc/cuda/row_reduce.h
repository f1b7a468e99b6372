// Work on the independent rows of a matrix, a group of threads a row: a part of a warp, a warp, or
// a block. Thread `rank` of a group of `size` has the columns rank, rank + size, ..., so neighbours
// read neighbours, whatever the alignment, and all that a thread reads is under way at once. Rows
// that fit are kept in registers and read once, longer ones are read again in each pass.
//
// The group's size, and with it the order of a sum, follows from the number of columns.
#pragma once

#include "core/shape.h"
#include "cuda/fast_divide.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {

constexpr int lanes = 32, most_in_group = 1024;
constexpr unsigned whole_warp = 0xffffffffu;

class Group {
 public:
  __device__ Group(int size, int rank) : size_(size), rank_(rank) {}

  __device__ int size() const { return size_; }
  __device__ int rank() const { return rank_; }

  // All threads of the block come here, and get their group's. What any of the group read before is
  // not changed by what another writes behind: a result may lie over its operand.
  template <class T>
  __device__ T sum(T value) {
    return joined(value, T(0), [](T a, T b) { return a + b; });
  }
  // NaN counts nothing.
  template <class T>
  __device__ T maximum(T value) {
    return joined(value, T(-INFINITY), [](T a, T b) { return fmax(a, b); });
  }

 private:
  // Both partners of an exchange join the same two values: every thread has the same bits.
  template <class T, class F>
  static __device__ __forceinline__ T joined_lanes(T value, int count, F join) {
    for (int distance = count / 2; distance > 0; distance /= 2) {
      value = join(value, __shfl_xor_sync(whole_warp, value, distance));
    }
    return value;
  }

  template <class T, class F>
  __device__ __forceinline__ T joined(T value, T neutral, F join) {
    if (size_ <= lanes) {
      value = joined_lanes(value, size_, join);
      __syncwarp();  // a shuffle orders no memory
      return value;
    }
    // Two sets in turn: who is ahead writes to the other one, and comes back to the first only
    // behind a barrier that all reached after they had read it.
    __shared__ T parts[2][lanes];
    const int warp = rank_ / lanes, lane = rank_ % lanes;
    value = joined_lanes(value, lanes, join);
    if (lane == 0) parts[set_][warp] = value;
    __syncthreads();
    value = lane < size_ / lanes ? parts[set_][lane] : neutral;
    set_ ^= 1;
    return joined_lanes(value, lanes, join);
  }

  int size_, rank_;
  int set_ = 0;
};

// A thread's part of a row, in registers. Places behind the row's end hold the padding.
template <class V, int held>
struct Kept {
  V values[held];
  int first, step, columns;

  template <class Read>
  __device__ Kept(const Group& group, int64_t n, V padding, Read read)
      : first(group.rank()), step(group.size()), columns(static_cast<int>(n)) {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      const int i = first + k * step;
      values[k] = i < columns ? read(i) : padding;
    }
  }

  // f(value), padding too.
  template <class F>
  __device__ __forceinline__ void fold(F f) const {
#pragma unroll
    for (int k = 0; k < held; ++k) f(values[k]);
  }
  // f(value, column)
  template <class F>
  __device__ __forceinline__ void each(F f) const {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      const int i = first + k * step;
      if (i < columns) f(values[k], i);
    }
  }
  // From here on every value is f(value), padding too.
  template <class F>
  __device__ __forceinline__ Kept mapped(F f) const {
    Kept to = *this;
#pragma unroll
    for (int k = 0; k < held; ++k) to.values[k] = f(values[k]);
    return to;
  }
};

struct Unchanged {
  template <class V>
  __device__ V operator()(V v) const {
    return v;
  }
};

// The same of a row that is too long, by a group as large as there are: each pass reads it, `held`
// values at a time.
template <class V, int held, class Read, class Map>
struct Streamed {
  static constexpr int step = most_in_group;
  int64_t first, columns;
  V padding;
  Read read;
  Map map;

  template <class F>
  __device__ __forceinline__ void fold(F f) const {
    pass([&](V v, int64_t) { f(map(v)); });
  }
  template <class F>
  __device__ __forceinline__ void each(F f) const {
    pass([&](V v, int64_t i) {
      if (i < columns) f(map(v), i);
    });
  }
  template <class F>
  __device__ __forceinline__ Streamed<V, held, Read, F> mapped(F f) const {
    return {first, columns, padding, read, f};
  }

 private:
  template <class F>
  __device__ __forceinline__ void pass(F f) const {
#pragma unroll 1
    for (int64_t start = first; start < columns; start += held * step) {
      V values[held];
#pragma unroll
      for (int k = 0; k < held; ++k) {
        const int64_t i = start + k * step;
        values[k] = i < columns ? read(i) : padding;
      }
#pragma unroll
      for (int k = 0; k < held; ++k) f(values[k], start + k * step);
    }
  }
};

// What an operation's function is given. `columns` is 0 behind the last row, where nothing may be
// read or written, but whose threads take part in the reductions of their warp.
template <int held, bool fits>
struct Row {
  Group group;
  int64_t number, columns;
  bool there;

  // The values read(column).
  template <class V, class Read>
  __device__ __forceinline__ auto values(V padding, Read read) const {
    if constexpr (fits) {
      return Kept<V, held>(group, columns, padding, read);
    } else {
      return Streamed<V, held, Read, Unchanged>{group.rank(), columns, padding, read, {}};
    }
  }
  // The one thread of a row that stores its sum.
  __device__ bool leads() const { return there && group.rank() == 0; }
};

template <class Operation, int held, bool fits, int threads>
__global__ void __launch_bounds__(threads)
    rows_kernel(Operation operation, int64_t rows, int64_t columns, int size) {
  const int thread = static_cast<int>(threadIdx.x), group = thread / size;
  const int64_t number = int64_t{blockIdx.x} * (static_cast<int>(blockDim.x) / size) + group;
  const bool there = number < rows;
  Row<held, fits> row{Group(size, thread - group * size), number, there ? columns : 0, there};
  operation(row);
}

// A part of a warp is a power of two, so that shuffles stay inside it.
inline int64_t group_size(int64_t columns, int held) {
  const int64_t wanted = ceil_div(columns, held);
  if (wanted > lanes) return smaller(ceil_div(wanted, lanes) * lanes, most_in_group);
  int64_t size = 1;
  while (size < wanted) size *= 2;
  return size;
}

template <int held, bool fits, int threads, class Operation>
void launch_rows(const Rows& s, const Operation& operation) {
  const int64_t size = group_size(s.columns, held), block = larger(size, 128);
  const int64_t together = size > lanes ? 1 : block / size;
  launch(rows_kernel<Operation, held, fits, threads>,
         dim3(static_cast<unsigned>(ceil_div(s.rows, together))),
         dim3(static_cast<unsigned>(size > lanes ? size : block)), 0, operation, s.rows, s.columns,
         static_cast<int>(size));
}

// operation(row) for every row of T, by all threads of the row's group.
template <class T, class Operation>
void over_rows(const Rows& s, const Operation& operation) {
  constexpr int few = 16 / static_cast<int>(sizeof(T)), many = 4 * few;
  if (s.columns <= lanes * few) return launch_rows<few, true, 128>(s, operation);
  if (s.columns <= most_in_group * many)
    return launch_rows<many, true, most_in_group>(s, operation);
  launch_rows<2 * few, false, most_in_group>(s, operation);
}

}  // namespace chainrule::cuda
