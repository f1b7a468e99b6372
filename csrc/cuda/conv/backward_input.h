// Gradient of a convolution's input, one GEMM per stride phase. Shared by convolutions with and
// without pooling.
#pragma once

#include "cuda/conv/window_loader.h"
#include "cuda/gemm/matrix_loader.h"

namespace chainrule::cuda {

// Stores to the pixels of one phase of dx.
template <class T>
struct PhaseOutput {
  T* corner;  // of the phase's first pixel
  PixelIndexer indexer;
  int64_t image, row, column;  // distances in elements between neighboring pixels of the phase
  bool vectorized;

  template <int width>
  __device__ __forceinline__ void store(int64_t first, int64_t channel, T (&v)[4][width], int64_t m,
                                        int64_t n) const {
    const PixelIndexer::Start start = indexer.start(first);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const PixelIndexer::Pixel p = indexer.advance(start, i);
      if (first + i >= m) return;
      T* const to = corner + (p.image * image + p.row * row + p.column * column + channel);
      store_row(v[i], to, vectorized, channel, n);
    }
  }
};

// Calls f(phase, its index) for each phase of one axis that has at least one tap and one pixel.
// Iterates over taps, because a stride can have many more phases than the window has taps.
template <class F>
void for_each_phase_along(int64_t length, int64_t stride, int64_t pad, int64_t window, F f) {
  for (int64_t tap = 0; tap < min(window, stride); ++tap) {
    const int64_t number = (tap + stride - pad % stride) % stride;
    if (number < length) f(StridePhase(number, length, stride, pad, window), number);
  }
}

// Calls f(row phase, column phase, offset of the first pixel in dx) for each nonempty pair of
// phases.
template <class F>
void for_each_phase(const Conv2d& s, F f) {
  if (s.out == 0) return;
  const Window& w = s.window;
  for_each_phase_along(s.height, w.stride_rows, s.pad_top, w.rows,
                       [&](const StridePhase& rows, int64_t i) {
                         for_each_phase_along(s.width, w.stride_columns, s.pad_left, w.columns,
                                              [&](const StridePhase& columns, int64_t j) {
                                                f(rows, columns, (i * s.width + j) * s.in);
                                              });
                       });
}

// Returns true if some pixels of dx belong to no phase. Their gradient is zero.
inline bool leaves_pixels_unwritten(const Conv2d& s) {
  const Window& w = s.window;
  return s.out == 0 || w.rows < w.stride_rows || w.columns < w.stride_columns;
}

template <class T>
GemmConfig<T> phase_config(const Conv2d& s, const StridePhase& rows, const StridePhase& columns) {
  return {s.batch * rows.count * columns.count, s.in, rows.taps * columns.taps * s.out};
}

template <class T>
int64_t backward_input_workspace(const Conv2d& s) {
  int64_t most = 0;
  for_each_phase(s, [&](const StridePhase& rows, const StridePhase& columns, int64_t) {
    most = max(most, phase_config<T>(s, rows, columns).workspace_bytes());
  });
  return most;
}

// `gradient` makes the loader of the output's gradient from a phase's sliding window.
template <class T, class Gradient>
void backward_input(const T* weight, T* dx, const Conv2d& s, T* partials, Gradient gradient) {
  if (leaves_pixels_unwritten(s)) clear(dx, s.batch * s.height * s.width * s.in);
  for_each_phase(s, [&](const StridePhase& rows, const StridePhase& columns, int64_t offset) {
    const PixelIndexer indexer(s.batch, rows.count, columns.count);
    const SlidingWindow<T> window{nullptr,
                                  static_cast<int>(s.out_height),
                                  static_cast<int>(s.out_width),
                                  s.out,
                                  rows.corner,
                                  columns.corner,
                                  1,
                                  1,
                                  indexer,
                                  FastDivisor(s.out),
                                  FastDivisor(columns.taps),
                                  rows.taps * columns.taps * s.out};
    const PhaseOutput<T> output{dx + offset,
                                indexer,
                                s.height * s.width * s.in,
                                min(s.window.stride_rows, s.height) * s.width * s.in,
                                min(s.window.stride_columns, s.width) * s.in,
                                can_store_vec4(dx, s.in)};
    run_gemm(phase_config<T>(s, rows, columns), gradient(window),
             FlippedFilterLoader<T>(weight, s, rows, columns), output, partials);
  });
}

}  // namespace chainrule::cuda
