// What convolutions with and without pooling share: the input's gradient phase by phase.
#pragma once

#include "cuda/conv/window_loader.h"
#include "cuda/gemm/matrix_loader.h"

namespace chainrule::cuda {

// The pixels of one phase of dx.
template <class T>
struct PhaseResult {
  T* corner;  // of the phase's first pixel
  Walk walk;
  int64_t image, row, column;  // elements from one pixel of the phase to the next
  bool wide;

  template <int width>
  __device__ __forceinline__ void store(int64_t first, int64_t channel, T (&v)[4][width], int64_t m,
                                        int64_t n) const {
    const Walk::Start start = walk.from(first);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Walk::Place p = walk.after(start, i);
      if (first + i >= m) return;
      T* const to = corner + (p.image * image + p.row * row + p.column * column + channel);
      store_row(v[i], to, wide, channel, n);
    }
  }
};

// f(phase, its number) for the phases of one axis that meet a tap and have pixels: by the first of
// the taps, since a stride may have many more phases than a window taps.
template <class F>
void for_phases_along(int64_t length, int64_t stride, int64_t pad, int64_t window, F f) {
  for (int64_t tap = 0; tap < smaller(window, stride); ++tap) {
    const int64_t number = (tap + stride - pad % stride) % stride;
    if (number < length) f(Phase(number, length, stride, pad, window), number);
  }
}

// f(row phase, column phase, offset of their first pixel in dx) for all in which dx is a sum.
template <class F>
void for_phases(const Conv2d& s, F f) {
  if (s.out == 0) return;
  const Window& w = s.window;
  for_phases_along(s.height, w.stride_rows, s.pad_top, w.rows, [&](const Phase& rows, int64_t i) {
    for_phases_along(
        s.width, w.stride_columns, s.pad_left, w.columns,
        [&](const Phase& columns, int64_t j) { f(rows, columns, (i * s.width + j) * s.in); });
  });
}

// Whether there may be pixels of dx beside them, which are zero.
inline bool leaves_pixels(const Conv2d& s) {
  const Window& w = s.window;
  return s.out == 0 || w.rows < w.stride_rows || w.columns < w.stride_columns;
}

template <class T>
Plan<T> phase_plan(const Conv2d& s, const Phase& rows, const Phase& columns) {
  return {s.batch * rows.count * columns.count, s.in, rows.taps * columns.taps * s.out};
}

template <class T>
int64_t backward_input_workspace(const Conv2d& s) {
  int64_t most = 0;
  for_phases(s, [&](const Phase& rows, const Phase& columns, int64_t) {
    most = larger(most, phase_plan<T>(s, rows, columns).workspace());
  });
  return most;
}

// `gradient` makes a loader of what a phase's windows see: the gradient by the output's pixels.
template <class T, class Gradient>
void backward_input(const T* weight, T* dx, const Conv2d& s, T* partial, Gradient gradient) {
  if (leaves_pixels(s)) clear(dx, s.batch * s.height * s.width * s.in);
  for_phases(s, [&](const Phase& rows, const Phase& columns, int64_t offset) {
    const Walk walk(s.batch, rows.count, columns.count);
    const Sliding<T> window{nullptr,
                            static_cast<int>(s.out_height),
                            static_cast<int>(s.out_width),
                            s.out,
                            rows.corner,
                            columns.corner,
                            1,
                            1,
                            walk,
                            Divider(s.out),
                            Divider(columns.taps),
                            rows.taps * columns.taps * s.out};
    const PhaseResult<T> result{dx + offset,
                                walk,
                                s.height * s.width * s.in,
                                s.window.stride_rows * s.width * s.in,
                                s.window.stride_columns * s.in,
                                stores_wide(dx, s.in)};
    multiply(phase_plan<T>(s, rows, columns), gradient(window),
             TurnedFilters<T>(weight, s, rows, columns), result, partial);
  });
}

}  // namespace chainrule::cuda
