// Kernels over the independent rows of a matrix. A group of threads has one row: part of a warp, a
// warp, or a block. Thread `rank` of a group of `size` has columns rank, rank + size, ... So
// accesses are coalesced at any alignment, and all loads of a thread overlap. Short rows are stored
// in registers and read once. Longer rows are read again in each pass.
//
// The group's size, and so the order of each sum, depends only on the number of columns.
#pragma once

#include "core/shape.h"
#include "cuda/fast_divide.h"
#include "cuda/long_sum.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {

constexpr int warp_size = 32, max_group_size = 1024;
constexpr unsigned full_warp_mask = 0xffffffffu;

class RowGroup {
 public:
  __device__ RowGroup(int size, int rank) : size_(size), rank_(rank) {}

  __device__ int size() const { return size_; }
  __device__ int rank() const { return rank_; }

  // Reductions over the group. All threads of the block must call them. They are also a barrier for
  // the group: what a thread read before is not overwritten by another thread's later store. So a
  // result may alias its operand.
  template <class T>
  __device__ T sum(T value) {
    return reduce(value, T(0), [](T a, T b) { return a + b; });
  }
  // NaN is ignored.
  template <class T>
  __device__ T maximum(T value) {
    return reduce(value, T(-INFINITY), [](T a, T b) { return fmax(a, b); });
  }

 private:
  // Both lanes of an exchange combine the same two values, so every lane has the same bits.
  template <class T, class F>
  static __device__ __forceinline__ T reduce_lanes(T value, int count, F combine) {
    for (int distance = count / 2; distance > 0; distance /= 2) {
      value = combine(value, __shfl_xor_sync(full_warp_mask, value, distance));
    }
    return value;
  }

  template <class T, class F>
  __device__ __forceinline__ T reduce(T value, T identity, F combine) {
    if (size_ <= warp_size) {
      value = reduce_lanes(value, size_, combine);
      __syncwarp();  // a shuffle does not order memory accesses
      return value;
    }
    // Double-buffered: the next reduction writes the other buffer. This buffer is written again
    // only after a barrier that follows all reads of it.
    __shared__ T warp_results[2][warp_size];
    const int warp = rank_ / warp_size, lane = rank_ % warp_size;
    value = reduce_lanes(value, warp_size, combine);
    if (lane == 0) warp_results[set_][warp] = value;
    __syncthreads();
    value = lane < size_ / warp_size ? warp_results[set_][lane] : identity;
    set_ ^= 1;
    return reduce_lanes(value, warp_size, combine);
  }

  int size_, rank_;
  int set_ = 0;
};

// A thread's values of a row, in registers. Values past the end of the row are the padding.
template <class V, int per_thread>
struct RegisterRow {
  V values[per_thread];
  int first, step, columns;

  template <class Read>
  __device__ RegisterRow(const RowGroup& group, int64_t n, V padding, Read read)
      : first(group.rank()), step(group.size()), columns(static_cast<int>(n)) {
#pragma unroll
    for (int k = 0; k < per_thread; ++k) {
      const int i = first + k * step;
      values[k] = i < columns ? read(i) : padding;
    }
  }

  // Calls f(value) for each value, including padding.
  template <class F>
  __device__ __forceinline__ void fold(F f) const {
#pragma unroll
    for (int k = 0; k < per_thread; ++k) f(values[k]);
  }
  // Returns the thread's sum. add(total, value, column) adds a value, also padding.
  template <class T, class F>
  __device__ __forceinline__ T sum(F add) const {
    T total = T(0);
#pragma unroll
    for (int k = 0; k < per_thread; ++k) total = add(total, values[k], first + k * step);
    return total;
  }
  // Calls f(value, column) for each value inside the row.
  template <class F>
  __device__ __forceinline__ void for_each(F f) const {
#pragma unroll
    for (int k = 0; k < per_thread; ++k) {
      const int i = first + k * step;
      if (i < columns) f(values[k], i);
    }
  }
  // Returns a copy with every value replaced by f(value), including padding.
  template <class F>
  __device__ __forceinline__ RegisterRow map(F f) const {
    RegisterRow to = *this;
#pragma unroll
    for (int k = 0; k < per_thread; ++k) to.values[k] = f(values[k]);
    return to;
  }
};

struct Identity {
  template <class V>
  __device__ V operator()(V v) const {
    return v;
  }
};

// The same interface for a row that does not fit in registers, with the largest group. Each pass
// reads the row again, `per_thread` values at a time.
template <class V, int per_thread, class Read, class Transform>
struct StreamedRow {
  static constexpr int step = max_group_size;
  int64_t first, columns;
  V padding;
  Read read;
  Transform transform;

  template <class F>
  __device__ __forceinline__ void fold(F f) const {
    pass([&](V v, int64_t) { f(transform(v)); }, [](int64_t) {});
  }
  template <class T, class F>
  __device__ __forceinline__ T sum(F add) const {
    LongSum<T> total;
    pass([&](V v, int64_t i) { total.part = add(total.part, transform(v), i); },
         [&](int64_t end) { total.added(end / step); });
    return total.total();
  }
  template <class F>
  __device__ __forceinline__ void for_each(F f) const {
    pass(
        [&](V v, int64_t i) {
          if (i < columns) f(transform(v), i);
        },
        [](int64_t) {});
  }
  template <class F>
  __device__ __forceinline__ StreamedRow<V, per_thread, Read, F> map(F f) const {
    return {first, columns, padding, read, f};
  }

 private:
  template <class F, class After>
  __device__ __forceinline__ void pass(F f, After after_values) const {
#pragma unroll 1
    for (int64_t start = first; start < columns; start += per_thread * step) {
      V values[per_thread];
#pragma unroll
      for (int k = 0; k < per_thread; ++k) {
        const int64_t i = start + k * step;
        values[k] = i < columns ? read(i) : padding;
      }
#pragma unroll
      for (int k = 0; k < per_thread; ++k) f(values[k], start + k * step);
      after_values(start + per_thread * step);
    }
  }
};

// Argument of an operation. Groups past the last row have `valid` false and `columns` 0. They may
// not read or write, but take part in the reductions of their warp.
template <int per_thread, bool in_registers>
struct Row {
  RowGroup group;
  int64_t index, columns;
  bool valid;

  // Returns the row's values read(column).
  template <class V, class Read>
  __device__ __forceinline__ auto values(V padding, Read read) const {
    if constexpr (in_registers) {
      return RegisterRow<V, per_thread>(group, columns, padding, read);
    } else {
      return StreamedRow<V, per_thread, Read, Identity>{group.rank(), columns, padding, read, {}};
    }
  }
  // True for the one thread that stores the row's result.
  __device__ bool is_leader() const { return valid && group.rank() == 0; }
};

template <class Operation, int per_thread, bool in_registers, int threads>
__global__ void __launch_bounds__(threads)
    row_kernel(Operation operation, int64_t rows, int64_t columns, int size) {
  const int thread = static_cast<int>(threadIdx.x), group = thread / size;
  const int64_t index = int64_t{blockIdx.x} * (static_cast<int>(blockDim.x) / size) + group;
  const bool valid = index < rows;
  Row<per_thread, in_registers> row{RowGroup(size, thread - group * size), index,
                                    valid ? columns : 0, valid};
  operation(row);
}

// Returns the threads per row. Below a warp it is a power of two, so that shuffles stay inside the
// group.
inline int64_t group_size(int64_t columns, int per_thread) {
  const int64_t wanted = ceil_div(columns, per_thread);
  if (wanted > warp_size) return min(ceil_div(wanted, warp_size) * warp_size, max_group_size);
  int64_t size = 1;
  while (size < wanted) size *= 2;
  return size;
}

template <int per_thread, bool in_registers, int threads, class Operation>
void launch_row_kernel(const Rows& s, const Operation& operation) {
  const int64_t size = group_size(s.columns, per_thread), block = max(size, 128);
  const int64_t together = size > warp_size ? 1 : block / size;
  launch(row_kernel<Operation, per_thread, in_registers, threads>,
         dim3(static_cast<unsigned>(ceil_div(s.rows, together))),
         dim3(static_cast<unsigned>(size > warp_size ? size : block)), 0, operation, s.rows,
         s.columns, static_cast<int>(size));
}

// Calls operation(row) for every row, by all threads of the row's group.
template <class T, class Operation>
void for_each_row(const Rows& s, const Operation& operation) {
  constexpr int short_row = 16 / static_cast<int>(sizeof(T)), long_row = 4 * short_row;
  if (s.columns <= warp_size * short_row)
    return launch_row_kernel<short_row, true, 128>(s, operation);
  if (s.columns <= max_group_size * long_row)
    return launch_row_kernel<long_row, true, max_group_size>(s, operation);
  // With 4 values of float64 per thread, cross-entropy would spill registers.
  launch_row_kernel<sizeof(T) == 4 ? 8 : 2, false, max_group_size>(s, operation);
}

}  // namespace chainrule::cuda
