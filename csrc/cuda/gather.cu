// Copies rows by index: a batch from the data set, with uint8 pixels scaled to [0, 1]. The host
// cannot check indices in device memory, so the kernel reports an index out of range.
#include "cuda/fast_divide.h"
#include "cuda/gemm/async_copy.h"
#include "cuda/kernel.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {
namespace {

constexpr int threads = 256;
template <int width>
constexpr int vectors_per_thread = width == 4 ? 2 : 4;

struct alignas(4) ByteVec4 {
  uint8_t values[4];
};

template <class T>
__device__ __forceinline__ void load_vector(const T* from, T (&to)[1]) {
  to[0] = *from;
}
template <class T>
__device__ __forceinline__ void load_vector(const T* from, T (&to)[4]) {
  load_vec4(from, to);
}
__device__ __forceinline__ void load_vector(const uint8_t* from, uint8_t (&to)[4]) {
  const ByteVec4 bytes = *reinterpret_cast<const ByteVec4*>(from);
#pragma unroll
  for (int i = 0; i < 4; ++i) to[i] = bytes.values[i];
}

template <class T>
__device__ __forceinline__ T to_element(T x) {
  return x;
}
template <class T>
__device__ __forceinline__ T to_element(uint8_t x) {
  return static_cast<T>(x) / T(255);
}

// A vector is `width` elements of one row. A thread loads all its indices, then all its elements,
// so that loads of one kind overlap.
template <class T, class Source, int width>
__global__ void __launch_bounds__(threads)
    gather_kernel(const Source* source, const int64_t* indices, T* y, Gather s,
                  FastDivisor vectors_per_row, int* errors) {
  constexpr int vectors = vectors_per_thread<width>;
  const int64_t first = int64_t{blockIdx.x} * threads * vectors + threadIdx.x;
  const int64_t count = s.rows * vectors_per_row.divisor();
  int64_t index[vectors], column[vectors], offset[vectors];
  Source values[vectors][width] = {};
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    const int64_t vector = first + i * threads, row = vectors_per_row.divide(vector);
    column[i] = (vector - row * vectors_per_row.divisor()) * width;
    offset[i] = row * s.columns + column[i];
    index[i] = vector < count ? indices[row] : 0;
  }
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (first + i * threads >= count) continue;
    const bool in_range = index[i] >= 0 && index[i] < s.source_rows;
    if (!in_range) atomicOr(errors, bad_index);
    if (s.source_rows == 0) continue;
    load_vector(source + (in_range ? index[i] : 0) * s.columns + column[i], values[i]);
  }
#pragma unroll
  for (int i = 0; i < vectors; ++i) {
    if (first + i * threads >= count) continue;
    T converted[width];
#pragma unroll
    for (int j = 0; j < width; ++j) converted[j] = to_element<T>(values[i][j]);
    if constexpr (width == 4) store_vec4(converted, y + offset[i]);
    else y[offset[i]] = converted[0];
  }
}

template <int width, class T, class Source>
void launch_gather(const Source* source, const int64_t* indices, T* y, const Gather& s) {
  const FastDivisor vectors_per_row(s.columns / width);
  const int64_t vectors = s.rows * (s.columns / width);
  const int64_t blocks = ceil_div(vectors, threads * vectors_per_thread<width>);
  launch(gather_kernel<T, Source, width>, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0,
         source, indices, y, s, vectors_per_row, device_errors());
}

template <class T, class Source>
void gather_from(const Source* source, const int64_t* indices, T* y, const Gather& s) {
  // If the first row's vec4s are aligned, those of all rows are.
  constexpr std::size_t aligned = sizeof(Source) == 1 ? sizeof(ByteVec4) : 16;
  const bool vec4 = reinterpret_cast<uintptr_t>(source) % aligned == 0 && is_aligned16(y);
  if (s.columns % 4 == 0 && vec4) launch_gather<4>(source, indices, y, s);
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
