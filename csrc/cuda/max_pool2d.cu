// Max-pooling, eq. (61)-(63). Forward, a thread has one window. Backward, a thread has one pixel
// and reads the windows that contain it, in row order. Threads have four channels at a time if
// those are aligned.
//
// If windows do not overlap and are small, a backward thread has one window instead. It reads the
// gradient once and writes all pixels of the window. Pixels past the last window form windows
// without a gradient.
#include "cuda/argmax_check.h"
#include "cuda/fast_divide.h"
#include "cuda/gemm/async_copy.h"
#include "cuda/kernel.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {
namespace {

constexpr int threads = 256;

template <int width>
struct alignas(2 * width) ArgmaxVector {
  uint16_t values[width];
};

template <int width, class T>
__device__ __forceinline__ void load(const T* from, T (&to)[width]) {
  if constexpr (width == 4) load_vec4(from, to);
  else to[0] = *from;
}

template <int width, class T>
__device__ __forceinline__ void store(const T (&from)[width], T* to) {
  if constexpr (width == 4) store_vec4(from, to);
  else *to = from[0];
}

template <int width>
__device__ __forceinline__ ArgmaxVector<width> load_argmax(const uint16_t* argmax) {
  return *reinterpret_cast<const ArgmaxVector<width>*>(argmax);
}

// One thread per vector of channels of each grid position of each image.
struct ChannelGrid {
  FastDivisor vectors, columns, rows;
  int64_t count;

  struct Position {
    int64_t image, row, column, vector;
  };

  ChannelGrid(int64_t batch, int64_t height, int64_t width, int64_t vectors_per_pixel)
      : vectors(vectors_per_pixel),
        columns(width),
        rows(height),
        count(batch * height * width * vectors_per_pixel) {}

  dim3 blocks() const { return dim3(static_cast<unsigned>(ceil_div(count, threads))); }

  __device__ __forceinline__ Position position(int64_t index) const {
    const int64_t pixel = vectors.divide(index), row = columns.divide(pixel),
                  image = rows.divide(row);
    return {image, row - image * rows.divisor(), pixel - row * columns.divisor(),
            index - pixel * vectors.divisor()};
  }
};

__device__ __forceinline__ int64_t thread_index() {
  return int64_t{blockIdx.x} * threads + threadIdx.x;
}

// `side` is the window's side if known at compile time, else 0. If known, all loads precede the
// comparisons.
template <class T, int width, int side>
__global__ void __launch_bounds__(threads)
    max_pool2d_kernel(const T* x, T* y, uint16_t* argmax, MaxPool2d s, ChannelGrid windows) {
  const int64_t index = thread_index();
  if (index >= windows.count) return;
  const ChannelGrid::Position p = windows.position(index);
  const int64_t pixel = s.channels, row = s.width * pixel;
  const T* const corner = x + (p.image * s.height + p.row * s.window.stride_rows) * row +
                          p.column * s.window.stride_columns * pixel + p.vector * width;
  const int rows = side > 0 ? side : static_cast<int>(s.window.rows);
  const int columns = side > 0 ? side : static_cast<int>(s.window.columns);
  T best[width], v[width];
  ArgmaxVector<width> argmax_vector{};
  load<width>(corner, best);
  for (int r = 0, position = 0; r < rows; ++r) {
#pragma unroll 2
    for (int q = 0; q < columns; ++q, ++position) {
      load<width>(corner + r * row + q * pixel, v);
#pragma unroll
      for (int c = 0; c < width; ++c) {
        // The first maximum wins. So does the first NaN, because no value compares greater.
        if (best[c] != best[c] || v[c] <= best[c]) continue;
        best[c] = v[c];
        argmax_vector.values[c] = static_cast<uint16_t>(position);
      }
    }
  }
  store<width>(best, y + index * width);
  *reinterpret_cast<ArgmaxVector<width>*>(argmax + index * width) = argmax_vector;
}

template <class T, int width>
__global__ void __launch_bounds__(threads)
    max_pool2d_backward_window_kernel(const T* dy, const uint16_t* argmax, T* dx, MaxPool2d s,
                                      ChannelGrid windows) {
  const int64_t index = thread_index();
  if (index >= windows.count) return;
  const ChannelGrid::Position p = windows.position(index);
  const int64_t pixel = s.channels;
  const bool valid = p.row < s.out_height && p.column < s.out_width;
  T g[width] = {};
  ArgmaxVector<width> argmax_vector{};
  if (valid) {
    const int64_t from =
        ((p.image * s.out_height + p.row) * s.out_width + p.column) * pixel + p.vector * width;
    load<width>(dy + from, g);
    argmax_vector = load_argmax<width>(argmax + from);
  }
  const int rows = static_cast<int>(s.window.rows), columns = static_cast<int>(s.window.columns);
  const int64_t top = p.row * rows, left = p.column * columns;
  T* const corner = dx + ((p.image * s.height + top) * s.width + left) * pixel + p.vector * width;
  for (int r = 0; r < rows && top + r < s.height; ++r) {
    for (int q = 0; q < columns && left + q < s.width; ++q) {
      T v[width];
#pragma unroll
      for (int c = 0; c < width; ++c)
        v[c] = argmax_vector.values[c] == r * columns + q ? g[c] : T(0);
      store<width>(v, corner + (r * s.width + q) * pixel);
    }
  }
}

// Range of windows along one axis that contain a pixel.
struct CoveringWindows {
  int64_t first, last;

  __device__ CoveringWindows(int64_t at, int64_t window, const FastDivisor& stride,
                             int64_t windows) {
    first = at < window ? 0 : stride.divide(at - window) + 1;
    last = stride.divide(at);
    if (last >= windows) last = windows - 1;
  }
};

template <class T, int width>
__global__ void __launch_bounds__(threads)
    max_pool2d_backward_pixel_kernel(const T* dy, const uint16_t* argmax, T* dx, MaxPool2d s,
                                     ChannelGrid pixels, FastDivisor stride_rows,
                                     FastDivisor stride_columns) {
  const int64_t index = thread_index();
  if (index >= pixels.count) return;
  const ChannelGrid::Position p = pixels.position(index);
  const CoveringWindows rows(p.row, s.window.rows, stride_rows, s.out_height);
  const CoveringWindows columns(p.column, s.window.columns, stride_columns, s.out_width);
  // A window has at most 65536 positions, so there are at most 64 parts.
  constexpr int part_windows = 1024;
  T sum[width] = {}, part[width] = {};
  int count = 0;
  for (int64_t i = rows.first; i <= rows.last; ++i) {
    const int64_t r = p.row - i * stride_rows.divisor();
    for (int64_t j = columns.first; j <= columns.last; ++j) {
      const int64_t q = p.column - j * stride_columns.divisor();
      const int64_t from =
          ((p.image * s.out_height + i) * s.out_width + j) * s.channels + p.vector * width;
      const int position = static_cast<int>(r * s.window.columns + q);
      const ArgmaxVector<width> argmax_vector = load_argmax<width>(argmax + from);
      T g[width];
      load<width>(dy + from, g);
#pragma unroll
      for (int c = 0; c < width; ++c) {
        if (argmax_vector.values[c] == position) part[c] += g[c];
      }
      if (++count < part_windows) continue;
      count = 0;
#pragma unroll
      for (int c = 0; c < width; ++c) {
        sum[c] += part[c];
        part[c] = T(0);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < width; ++c) sum[c] += part[c];
  store<width>(sum, dx + index * width);
}

constexpr int argmax_per_thread = 8;

__global__ void __launch_bounds__(threads)
    argmax_check_kernel(const uint16_t* argmax, int64_t count, int area, int error, int* errors) {
  const int64_t first = int64_t{blockIdx.x} * threads * argmax_per_thread + threadIdx.x;
  int largest = 0;
#pragma unroll
  for (int i = 0; i < argmax_per_thread; ++i) {
    const int64_t at = first + i * threads;
    const int position = at < count ? argmax[at] : 0;
    largest = position > largest ? position : largest;
  }
  if (largest >= area) atomicOr(errors, error);
}

// True if vectors of four channels are aligned in all arrays.
template <class T>
bool can_vectorize(const T* images, const T* pooled, const uint16_t* argmax, const MaxPool2d& s) {
  return s.channels % 4 == 0 && is_aligned16(images) && is_aligned16(pooled) &&
         reinterpret_cast<uintptr_t>(argmax) % alignof(ArgmaxVector<4>) == 0;
}

template <int width, class T>
void launch_max_pool2d(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  const ChannelGrid windows(s.batch, s.out_height, s.out_width, s.channels / width);
  const auto kernel = s.window.rows == 2 && s.window.columns == 2 ? max_pool2d_kernel<T, width, 2>
                                                                  : max_pool2d_kernel<T, width, 0>;
  launch(kernel, windows.blocks(), dim3(threads), 0, x, y, argmax, s, windows);
}

// Larger windows would serialize too many stores in one thread.
constexpr int64_t max_window_per_thread = 16;

template <int width, class T>
void launch_max_pool2d_backward(const T* dy, const uint16_t* argmax, T* dx, const MaxPool2d& s) {
  const Window& w = s.window;
  const int64_t vectors = s.channels / width;
  if (w.rows == w.stride_rows && w.columns == w.stride_columns &&
      w.rows * w.columns <= max_window_per_thread) {
    const ChannelGrid windows(s.batch, ceil_div(s.height, w.rows), ceil_div(s.width, w.columns),
                              vectors);
    return launch(max_pool2d_backward_window_kernel<T, width>, windows.blocks(), dim3(threads), 0,
                  dy, argmax, dx, s, windows);
  }
  const ChannelGrid pixels(s.batch, s.height, s.width, vectors);
  launch(max_pool2d_backward_pixel_kernel<T, width>, pixels.blocks(), dim3(threads), 0, dy, argmax,
         dx, s, pixels, FastDivisor(w.stride_rows), FastDivisor(w.stride_columns));
}

}  // namespace

void check_argmax(const uint16_t* argmax, const MaxPool2d& p, DeviceError error) {
  const int64_t count = p.batch * p.out_height * p.out_width * p.channels;
  const int64_t blocks = ceil_div(count, threads * argmax_per_thread);
  launch(argmax_check_kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, argmax, count,
         static_cast<int>(p.window.rows * p.window.columns), error, device_errors());
}

template <class T>
void max_pool2d(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  if (can_vectorize(x, y, argmax, s)) launch_max_pool2d<4>(x, y, argmax, s);
  else launch_max_pool2d<1>(x, y, argmax, s);
}

template <class T>
void max_pool2d_backward(const T* dy, const uint16_t* argmax, T* dx, const MaxPool2d& s) {
  check_argmax(argmax, s, bad_argmax_max_pool2d);
  if (can_vectorize(dx, dy, argmax, s)) launch_max_pool2d_backward<4>(dy, argmax, dx, s);
  else launch_max_pool2d_backward<1>(dy, argmax, dx, s);
}

CR_INSTANTIATE(max_pool2d);
CR_INSTANTIATE(max_pool2d_backward);

}  // namespace chainrule::cuda
