// Convolution, eq. (58)–(60), for every filter and channel, and its two backward passes. None
// unfolds the image (im2col): the tile of gemm.h reads the pixels where they lie.
//
// forward          y[p, :] = Σ over the window of x[p + (r, s), :] · weight[:, r, s, :]ᵀ
// backward input   the same over dy, with each filter turned about. A stride splits the pixels of
//                  x into stride_rows x stride_columns phases; those of one phase meet the same
//                  taps of a filter, so each phase is a plain correlation with these taps only
// backward weight  dweight[:, r, s, c] = Σ_p dy[p, :] x[p + (r, s), c]: rows of the product are
//                  (r, s, c), columns are filters, and the sum runs over the pixels of an image
#include "cpu/kernels/conv/backward_weight.h"
#include "cpu/kernels/conv/convolution.h"
#include "cpu/kernels/conv/sparse_backward.h"
#include "cpu/kernels/conv/winograd_backward_weight.h"
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The taps of a filter's axis that the pixels of one phase of the input's axis meet.
struct Phase {
  int64_t count;  // pixels phase, phase + stride, ... below the axis' length
  int64_t first;  // the smallest of its taps; the others follow at distance `stride`
  int64_t taps;
  int64_t corner;  // the gradient's pixel under the turned filter's corner, for the first pixel
};

Phase phase_of(int64_t phase, int64_t length, int64_t stride, int64_t pad, int64_t window) {
  Phase p;
  p.count = phase < length ? ceil_div(length - phase, stride) : 0;
  p.first = (phase + pad) % stride;
  p.taps = p.first < window ? ceil_div(window - p.first, stride) : 0;
  p.corner = floor_div(phase + pad - p.first, stride) - (p.taps - 1);
  return p;
}

template <class T>
Correlation<T> backward_phase(const Conv2d& s, const Phase& rows, const Phase& columns) {
  return {
      .image = {s.out_height, s.out_width, s.out},
      .window_rows = rows.taps,
      .window_columns = columns.taps,
      .top = rows.corner,
      .left = columns.corner,
      .step_rows = 1,
      .step_columns = 1,
      .out_rows = rows.count,
      .out_columns = columns.count,
      .target_row = s.window.stride_rows * s.width * s.in,
      .target_column = s.window.stride_columns * s.in,
      .filters = {rows.taps * columns.taps * s.out, s.in},
  };
}

// f(row phase, column phase, their indices) for every phase that has pixels.
template <class F>
void for_phases(const Conv2d& s, F f) {
  const Window& w = s.window;
  for (int64_t i = 0; i < smaller(w.stride_rows, s.height); ++i) {
    const Phase rows = phase_of(i, s.height, w.stride_rows, s.pad_top, w.rows);
    for (int64_t j = 0; j < smaller(w.stride_columns, s.width); ++j) {
      const Phase columns = phase_of(j, s.width, w.stride_columns, s.pad_left, w.columns);
      f(rows, columns, i, j);
    }
  }
}

template <class T>
Convolution<T, Pixels<T>> backward_convolution(const Conv2d& s, const Phase& rows,
                                               const Phase& columns, T* dx = nullptr) {
  return {backward_phase<T>(s, rows, columns),
          s.batch,
          s.out_height * s.out_width * s.out,
          cycles_of(s, Vec<T>::width) / (s.window.stride_rows * s.window.stride_columns),
          {dx, s.height * s.width * s.in}};
}

template <class T>
Convolution<T, Pixels<T>> forward_convolution(const Conv2d& s, T* y = nullptr) {
  return {forward<T>(s),
          s.batch,
          s.height * s.width * s.in,
          cycles_of(s, Vec<T>::width),
          {y, s.out_height * s.out_width * s.out}};
}

}  // namespace

template <class T>
int64_t conv2d_workspace(const Conv2d& s, int workers) {
  return forward_convolution<T>(s).workspace(workers);
}

template <class T>
void conv2d(const T* x, const T* weight, const T* bias, T* y, bool relu, const Conv2d& s,
            const Workspace& workspace) {
  Convolution<T, Pixels<T>> convolution = forward_convolution<T>(s, y);
  convolution.direct.bias = bias;
  convolution.direct.relu = relu;
  convolution.pack_filters(weight, workspace);
  convolution.run(x, workspace);
}

namespace {

// Backward input the other way round, for few channels: a phase's correlation would fill a part of
// a register with them. A pixel of dy adds its filters' runs, columns * channels numbers each, to
// the pixels of x under it; see runs.h.
template <class T>
bool adds_runs(const Conv2d& s) {
  const int64_t width = Vec<T>::width, columns = s.window.columns;
  return 3 * ceil_div(columns * s.in, width) <= 2 * columns * ceil_div(s.in, width);
}

template <class T>
struct InputByRuns {
  Sizes<T> sizes;
  PackedRuns<T> filters;
  int64_t packed_size, word_count;

  explicit InputByRuns(const Conv2d& s)
      : sizes(s),
        filters(packed_runs(s, sizes)),
        packed_size(filters.size(s)),
        word_count(ceil_div(s.out, 64)) {}
  int64_t words_size() const {
    return round_up(ceil_div(word_count * 8, static_cast<int64_t>(sizeof(T))), 16);
  }
  int64_t workspace(int workers) const {
    return (packed_size + words_size() + workers * sizes.image) * static_cast<int64_t>(sizeof(T));
  }
};

template <class T>
void input_by_runs(const T* dy, const T* weight, T* dx, const Conv2d& s,
                   const Workspace& workspace) {
  const InputByRuns<T> by(s);
  const Sizes<T>& sizes = by.sizes;
  const int64_t rows = s.window.rows, pixels = s.out_height * s.out_width;
  T* const packed = static_cast<T*>(workspace.data);
  uint64_t* const words = reinterpret_cast<uint64_t*>(packed + by.packed_size);
  T* const copies = packed + by.packed_size + by.words_size();
  parallel(s.out, s.out * rows * sizes.run, workspace.workers,
           [&](int64_t k, int) { by.filters.pack(weight, k, s, packed); });
  for (int64_t i = 0; i < by.word_count; ++i) {  // all filters: also 0 · NaN counts here
    const int64_t left = s.out - 64 * i;
    words[i] = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
  }
  parallel(s.batch, cycles_of(s, Vec<T>::width), workspace.workers, [&](int64_t image, int w) {
    T* const copy = copies + w * sizes.image;
    for (int64_t i = 0; i < sizes.image; ++i) copy[i] = T(0);
    for (int64_t r = 0; r < rows; r += by.filters.group) {
      const int64_t height = smaller(by.filters.group, rows - r);
      const Runs<T, OfFilters<T>> runs(height, sizes.run);
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        runs.add({.target = copy + r * sizes.row +
                            corner(s, sizes, pixel / s.out_width, pixel % s.out_width),
                  .target_row = sizes.row,
                  .source = packed + by.filters.offset(s, r),
                  .source_row = by.filters.step,
                  .words = words,
                  .word_count = by.word_count,
                  .set = {dy + (image * pixels + pixel) * s.out, by.filters.between(s, r)}});
      }
    }
    copy_rectangle(copy, Image{sizes.rows_seen, sizes.columns_seen, s.in}, s.pad_top, s.pad_left,
                   s.height, s.width, dx + image * s.height * s.width * s.in);
  });
}

}  // namespace

template <class T>
int64_t conv2d_backward_input_workspace(const Conv2d& s, int workers) {
  if (adds_runs<T>(s)) return InputByRuns<T>(s).workspace(workers);
  int64_t most = 0;
  for_phases(s, [&](const Phase& rows, const Phase& columns, int64_t, int64_t) {
    most = larger(most, backward_convolution<T>(s, rows, columns).workspace(workers));
  });
  return most;
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2d& s,
                           const Workspace& workspace) {
  if (adds_runs<T>(s)) return input_by_runs(dy, weight, dx, s, workspace);
  const Window& w = s.window;
  for_phases(s, [&](const Phase& rows, const Phase& columns, int64_t i, int64_t j) {
    const auto convolution =
        backward_convolution<T>(s, rows, columns, dx + (i * s.width + j) * s.in);
    const Packed<T>& filters = convolution.direct.filters;
    parallel(filters.slivers(), filters.size(), workspace.workers, [&](int64_t sliver, int) {
      int64_t row = 0;
      for (int64_t r = rows.taps - 1; r >= 0; --r) {
        for (int64_t q = columns.taps - 1; q >= 0; --q, row += s.out) {
          const int64_t tap =
              (rows.first + r * w.stride_rows) * w.columns + columns.first + q * w.stride_columns;
          pack_sliver(weight + tap * s.in, w.rows * w.columns * s.in, false, filters, sliver, row,
                      s.out, static_cast<T*>(workspace.data));
        }
      }
    });
    convolution.run(dy, workspace);
  });
}

namespace {

template <class T>
WinogradWeight<T> winograd_weight(const Conv2d& s) {
  return {.image = {s.height, s.width, s.in},
          .gradient = {s.out_height, s.out_width, s.out},
          .top = -s.pad_top,
          .left = -s.pad_left,
          .tiles = {s.batch, s.out_height, s.out_width}};
}

}  // namespace

template <class T>
int64_t conv2d_backward_weight_workspace(const Conv2d& s, int workers) {
  const int64_t direct = WeightSplit<T>(s).workspace(workers);
  if (!Tiles::serve(s.batch, forward<T>(s))) return direct;
  return larger(direct, winograd_weight<T>(s).workspace(workers));
}

template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                            const Workspace& workspace) {
  if (s.out == 0) return;  // the batch may be 2^40 empty images
  if (!Tiles::serve(s.batch, forward<T>(s))) {
    return weight_directly(dy, x, dweight, dbias, s, workspace);
  }
  const WinogradWeight<T> winograd = winograd_weight<T>(s);
  T* const sums = static_cast<T*>(workspace.data);
  T* const own = sums + winograd.chunks() * winograd.sum_size();
  parallel(winograd.tasks(), cycles_of(s, Vec<T>::width) / 2, workspace.workers,
           [&](int64_t task, int worker) {
             winograd.run(x, dy, task, sums, own + worker * winograd.own_size());
           });
  bool* const wrong = reinterpret_cast<bool*>(own);
  const int64_t registers = ceil_div(s.out, Vec<T>::width);
  parallel(registers, winograd.chunks() * winograd.sum_size(), workspace.workers,
           [&](int64_t index, int) {
             wrong[index] = !winograd.finish(sums, index * Vec<T>::width, dweight, dbias);
           });
  bool any = false;
  for (int64_t index = 0; index < registers; ++index) any = any || wrong[index];
  if (any) weight_directly(dy, x, dweight, dbias, s, workspace);
}

CR_INSTANTIATE(conv2d_workspace);
CR_INSTANTIATE(conv2d);
CR_INSTANTIATE(conv2d_backward_input_workspace);
CR_INSTANTIATE(conv2d_backward_input);
CR_INSTANTIATE(conv2d_backward_weight_workspace);
CR_INSTANTIATE(conv2d_backward_weight);

}  // namespace chainrule::CR_ISA
