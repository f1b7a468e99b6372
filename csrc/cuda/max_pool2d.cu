// eq. (61)–(63). Forward a thread has a window, backward a pixel, which looks at the windows that
// hold it, in row order; each for four channels at a time where they lie aligned.
//
// Windows side by side and not large are a thread's backward too: it reads the gradient once and
// writes the window's pixels. Pixels behind the last window are windows that nothing came from.
#include "cuda/argmax_check.h"
#include "cuda/fast_divide.h"
#include "cuda/gemm/async_copy.h"
#include "cuda/kernel.h"
#include "cuda/runtime/launch.h"

namespace chainrule::cuda {
namespace {

constexpr int threads = 256;

template <int width>
struct alignas(2 * width) Places {
  uint16_t at[width];
};

template <int width, class T>
__device__ __forceinline__ void load(const T* from, T (&to)[width]) {
  if constexpr (width == 4) load_four(from, to);
  else to[0] = *from;
}

template <int width, class T>
__device__ __forceinline__ void store(const T (&from)[width], T* to) {
  if constexpr (width == 4) store_four(from, to);
  else *to = from[0];
}

template <int width>
__device__ __forceinline__ Places<width> places_at(const uint16_t* argmax) {
  return *reinterpret_cast<const Places<width>*>(argmax);
}

// A thread for each piece of the channels of each place in a grid on each image.
struct Grid {
  Divider pieces, across, down;
  int64_t count;

  struct Place {
    int64_t image, row, column, piece;
  };

  Grid(int64_t batch, int64_t rows, int64_t columns, int64_t pieces_each)
      : pieces(pieces_each),
        across(columns),
        down(rows),
        count(batch * rows * columns * pieces_each) {}

  dim3 blocks() const { return dim3(static_cast<unsigned>(ceil_div(count, threads))); }

  __device__ __forceinline__ Place at(int64_t index) const {
    const int64_t pixel = pieces(index), row = across(pixel), image = down(row);
    return {image, row - image * down.by(), pixel - row * across.by(), index - pixel * pieces.by()};
  }
};

__device__ __forceinline__ int64_t thread_number() {
  return int64_t{blockIdx.x} * threads + threadIdx.x;
}

// `side` is the window's where the compiler knows it, else 0: then all is read before it is
// compared.
template <class T, int width, int side>
__global__ void __launch_bounds__(threads)
    pool_kernel(const T* x, T* y, uint16_t* argmax, MaxPool2d s, Grid windows) {
  const int64_t index = thread_number();
  if (index >= windows.count) return;
  const Grid::Place p = windows.at(index);
  const int64_t pixel = s.channels, row = s.width * pixel;
  const T* const corner = x + (p.image * s.height + p.row * s.window.stride_rows) * row +
                          p.column * s.window.stride_columns * pixel + p.piece * width;
  const int rows = side > 0 ? side : static_cast<int>(s.window.rows);
  const int columns = side > 0 ? side : static_cast<int>(s.window.columns);
  T best[width], v[width];
  Places<width> places{};
  load<width>(corner, best);
  for (int r = 0, place = 0; r < rows; ++r) {
#pragma unroll 2
    for (int q = 0; q < columns; ++q, ++place) {
      load<width>(corner + r * row + q * pixel, v);
#pragma unroll
      for (int c = 0; c < width; ++c) {
        // The first maximum wins; the first NaN is one that nothing exceeds.
        if (best[c] != best[c] || v[c] <= best[c]) continue;
        best[c] = v[c];
        places.at[c] = static_cast<uint16_t>(place);
      }
    }
  }
  store<width>(best, y + index * width);
  *reinterpret_cast<Places<width>*>(argmax + index * width) = places;
}

// Windows side by side: a thread writes the pixels of one.
template <class T, int width>
__global__ void __launch_bounds__(threads)
    unpool_window_kernel(const T* dy, const uint16_t* argmax, T* dx, MaxPool2d s, Grid windows) {
  const int64_t index = thread_number();
  if (index >= windows.count) return;
  const Grid::Place p = windows.at(index);
  const int64_t pixel = s.channels;
  const bool there = p.row < s.out_height && p.column < s.out_width;
  T g[width] = {};
  Places<width> places{};
  if (there) {
    const int64_t from =
        ((p.image * s.out_height + p.row) * s.out_width + p.column) * pixel + p.piece * width;
    load<width>(dy + from, g);
    places = places_at<width>(argmax + from);
  }
  const int rows = static_cast<int>(s.window.rows), columns = static_cast<int>(s.window.columns);
  const int64_t top = p.row * rows, left = p.column * columns;
  T* const corner = dx + ((p.image * s.height + top) * s.width + left) * pixel + p.piece * width;
  for (int r = 0; r < rows && top + r < s.height; ++r) {
    for (int q = 0; q < columns && left + q < s.width; ++q) {
      T v[width];
#pragma unroll
      for (int c = 0; c < width; ++c) v[c] = places.at[c] == r * columns + q ? g[c] : T(0);
      store<width>(v, corner + (r * s.width + q) * pixel);
    }
  }
}

// The windows along one axis that hold a pixel.
struct Holding {
  int64_t first, last;

  __device__ Holding(int64_t at, int64_t window, const Divider& stride, int64_t windows) {
    first = at < window ? 0 : stride(at - window) + 1;
    last = stride(at);
    if (last >= windows) last = windows - 1;
  }
};

template <class T, int width>
__global__ void __launch_bounds__(threads)
    unpool_pixel_kernel(const T* dy, const uint16_t* argmax, T* dx, MaxPool2d s, Grid pixels,
                        Divider stride_rows, Divider stride_columns) {
  const int64_t index = thread_number();
  if (index >= pixels.count) return;
  const Grid::Place p = pixels.at(index);
  const Holding rows(p.row, s.window.rows, stride_rows, s.out_height);
  const Holding columns(p.column, s.window.columns, stride_columns, s.out_width);
  T sum[width] = {};
  for (int64_t i = rows.first; i <= rows.last; ++i) {
    const int64_t r = p.row - i * stride_rows.by();
    for (int64_t j = columns.first; j <= columns.last; ++j) {
      const int64_t q = p.column - j * stride_columns.by();
      const int64_t from =
          ((p.image * s.out_height + i) * s.out_width + j) * s.channels + p.piece * width;
      const int place = static_cast<int>(r * s.window.columns + q);
      const Places<width> places = places_at<width>(argmax + from);
      T g[width];
      load<width>(dy + from, g);
#pragma unroll
      for (int c = 0; c < width; ++c) {
        if (places.at[c] == place) sum[c] += g[c];
      }
    }
  }
  store<width>(sum, dx + index * width);
}

constexpr int places_a_thread = 8;

__global__ void __launch_bounds__(threads)
    look_kernel(const uint16_t* argmax, int64_t count, int area, int fault, int* found) {
  const int64_t first = int64_t{blockIdx.x} * threads * places_a_thread + threadIdx.x;
  int largest = 0;
#pragma unroll
  for (int i = 0; i < places_a_thread; ++i) {
    const int64_t at = first + i * threads;
    const int place = at < count ? argmax[at] : 0;
    largest = place > largest ? place : largest;
  }
  if (largest >= area) atomicOr(found, fault);
}

// Four channels at a time, where all of them lie aligned.
template <class T>
bool by_four(const T* images, const T* pooled, const uint16_t* argmax, const MaxPool2d& s) {
  return s.channels % 4 == 0 && piecewise(images) && piecewise(pooled) &&
         reinterpret_cast<uintptr_t>(argmax) % alignof(Places<4>) == 0;
}

template <int width, class T>
void pool(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  const Grid windows(s.batch, s.out_height, s.out_width, s.channels / width);
  const auto kernel = s.window.rows == 2 && s.window.columns == 2 ? pool_kernel<T, width, 2>
                                                                  : pool_kernel<T, width, 0>;
  launch(kernel, windows.blocks(), dim3(threads), 0, x, y, argmax, s, windows);
}

// A thread that wrote a whole large window would keep all others waiting.
constexpr int64_t largest_of_a_thread = 16;

template <int width, class T>
void unpool(const T* dy, const uint16_t* argmax, T* dx, const MaxPool2d& s) {
  const Window& w = s.window;
  const int64_t pieces = s.channels / width;
  if (w.rows == w.stride_rows && w.columns == w.stride_columns &&
      w.rows * w.columns <= largest_of_a_thread) {
    const Grid windows(s.batch, ceil_div(s.height, w.rows), ceil_div(s.width, w.columns), pieces);
    return launch(unpool_window_kernel<T, width>, windows.blocks(), dim3(threads), 0, dy, argmax,
                  dx, s, windows);
  }
  const Grid pixels(s.batch, s.height, s.width, pieces);
  launch(unpool_pixel_kernel<T, width>, pixels.blocks(), dim3(threads), 0, dy, argmax, dx, s,
         pixels, Divider(w.stride_rows), Divider(w.stride_columns));
}

}  // namespace

void look_for_bad_places(const uint16_t* argmax, const MaxPool2d& p, Fault fault) {
  const int64_t count = p.batch * p.out_height * p.out_width * p.channels;
  const int64_t blocks = ceil_div(count, threads * places_a_thread);
  launch(look_kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), 0, argmax, count,
         static_cast<int>(p.window.rows * p.window.columns), fault, faults());
}

template <class T>
void max_pool2d(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  if (by_four(x, y, argmax, s)) pool<4>(x, y, argmax, s);
  else pool<1>(x, y, argmax, s);
}

template <class T>
void max_pool2d_backward(const T* dy, const uint16_t* argmax, T* dx, const MaxPool2d& s) {
  look_for_bad_places(argmax, s, bad_place);
  if (by_four(dx, dy, argmax, s)) unpool<4>(dy, argmax, dx, s);
  else unpool<1>(dy, argmax, dx, s);
}

CR_INSTANTIATE(max_pool2d);
CR_INSTANTIATE(max_pool2d_backward);

}  // namespace chainrule::cuda
