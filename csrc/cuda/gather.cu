// Rows by their indices: a batch from the data set, its pixels turned from bytes to [0, 1]. No host
// has looked at indices in the GPU's memory: the kernel tells of one that is out of range.
#include "cuda/async_copy.h"
#include "cuda/divider.h"
#include "cuda/kernel.h"
#include "cuda/launch.h"

namespace chainrule::cuda {
namespace {

constexpr int threads = 256;
template <int width>
constexpr int parts_a_thread = width == 4 ? 2 : 4;

struct alignas(4) FourBytes {
  uint8_t at[4];
};

template <class T>
__device__ __forceinline__ void load_part(const T* from, T (&to)[1]) {
  to[0] = *from;
}
template <class T>
__device__ __forceinline__ void load_part(const T* from, T (&to)[4]) {
  load_four(from, to);
}
__device__ __forceinline__ void load_part(const uint8_t* from, uint8_t (&to)[4]) {
  const FourBytes four = *reinterpret_cast<const FourBytes*>(from);
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = four.at[i];
}

template <class T>
__device__ __forceinline__ T number(T x) {
  return x;
}
template <class T>
__device__ __forceinline__ T number(uint8_t x) {
  return static_cast<T>(x) / T(255);
}

// A part is `width` elements of one row. First all of a thread's indices, then all their elements:
// memory answers those of one kind together.
template <class T, class Source, int width>
__global__ void __launch_bounds__(threads)
    gather_kernel(const Source* source, const int64_t* indices, T* y, Gather s, Divider by_row,
                  int* fault) {
  constexpr int parts = parts_a_thread<width>;
  const int64_t first = int64_t{blockIdx.x} * threads * parts + threadIdx.x;
  const int64_t count = s.rows * by_row.by();
  int64_t index[parts], column[parts], start[parts];
  Source held[parts][width] = {};
#pragma unroll
  for (int i = 0; i < parts; ++i) {
    const int64_t part = first + i * threads, row = by_row(part);
    column[i] = (part - row * by_row.by()) * width;
    start[i] = row * s.columns + column[i];
    index[i] = part < count ? indices[row] : 0;
  }
#pragma unroll
  for (int i = 0; i < parts; ++i) {
    if (first + i * threads >= count) continue;
    const bool known = index[i] >= 0 && index[i] < s.source_rows;
    if (!known) atomicOr(fault, bad_index);
    if (s.source_rows == 0) continue;
    load_part(source + (known ? index[i] : 0) * s.columns + column[i], held[i]);
  }
#pragma unroll
  for (int i = 0; i < parts; ++i) {
    if (first + i * threads >= count) continue;
    T result[width];
#pragma unroll
    for (int j = 0; j < width; ++j) result[j] = number<T>(held[i][j]);
    if constexpr (width == 4) store_four(result, y + start[i]);
    else y[start[i]] = result[0];
  }
}

template <int width, class T, class Source>
void launch_gather(const Source* source, const int64_t* indices, T* y, const Gather& s) {
  const Divider by_row(s.columns / width);
  const int64_t parts = s.rows * (s.columns / width);
  const int64_t blocks = ceil_div(parts, threads * parts_a_thread<width>);
  launch(gather_kernel<T, Source, width>, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0,
         source, indices, y, s, by_row, faults());
}

template <class T, class Source>
void gather_from(const Source* source, const int64_t* indices, T* y, const Gather& s) {
  // Where one row's fours are aligned, all rows' are.
  constexpr std::size_t aligned = sizeof(Source) == 1 ? sizeof(FourBytes) : 16;
  const bool fours = reinterpret_cast<uintptr_t>(source) % aligned == 0 && piecewise(y);
  if (s.columns % 4 == 0 && fours) launch_gather<4>(source, indices, y, s);
  else launch_gather<1>(source, indices, y, s);
}

}  // namespace

template <class T>
void gather(const void* source, bool source_is_uint8, const int64_t* indices, T* y,
            const Gather& s) {
  if (source_is_uint8) gather_from(static_cast<const uint8_t*>(source), indices, y, s);
  else gather_from(static_cast<const T*>(source), indices, y, s);
}

CR_INSTANTIATE(gather);

}  // namespace chainrule::cuda
