// Convolution, eq. (58)–(60), for every filter and channel, and its two backward passes. None
// unfolds the image (im2col): the tile of gemm.h reads the pixels where they lie.
//
// forward          y[p, :] = Σ over the window of x[p + (r, s), :] · weight[:, r, s, :]ᵀ
// backward input   the same over dy, with each filter turned about. A stride splits the pixels of
//                  x into stride_rows x stride_columns phases; those of one phase meet the same
//                  taps of a filter, so each phase is a plain correlation with these taps only
// backward weight  dweight[:, r, s, c] = Σ_p dy[p, :] x[p + (r, s), c]: rows of the product are
//                  (r, s, c), columns are filters, and the sum runs over the pixels of an image
#include "cpu/kernels/convolution.h"
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/winograd_weight.h"

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

// How backward weight splits its sum: images into chunks, each with partial sums of its own, and
// the (r, s, c) rows into groups. The split depends on the shape alone, so the bits do too.
template <class T>
struct WeightSplit {
  static constexpr int64_t most_chunks = 16;
  static constexpr int64_t most_bytes = int64_t{16} << 20;
  int64_t rows, columns, chunks, groups, group_rows, gradient_step, copy_size, pack_size;

  explicit WeightSplit(const Conv2d& s) {
    rows = s.window.rows * s.window.columns * s.in;
    columns = round_up(s.out, Vec<T>::width);
    const int64_t bytes = larger(1, rows * columns * static_cast<int64_t>(sizeof(T)));
    chunks = larger(1, smaller(smaller(most_chunks, s.batch), most_bytes / bytes));
    groups = larger(1, smaller(ceil_div(most_chunks, chunks), rows / (8 * tile_rows)));
    group_rows = round_up(ceil_div(larger(1, rows), groups), tile_rows);
    groups = ceil_div(larger(1, rows), group_rows);
    gradient_step = columns;
    const Correlation<T> seen = forward<T>(s);
    copy_size = seen.reaches_outside()
                    ? round_up(seen.rows_seen(s.out_height) * seen.columns_seen() * s.in, 16)
                    : 0;
    pack_size = columns == s.out ? 0 : round_up(s.out_height * s.out_width * columns, 16);
  }
  // Partial sums of the weights, then of the bias.
  int64_t partial_size() const { return round_up((rows + 1) * columns, 16); }
  int64_t workspace(int workers) const {
    return (chunks * partial_size() + workers * (copy_size + pack_size)) *
           static_cast<int64_t>(sizeof(T));
  }
};

}  // namespace

namespace {

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
void conv2d(const T* x, const T* weight, const T* bias, T* y, bool rectify, const Conv2d& s,
            const Workspace& workspace) {
  Convolution<T, Pixels<T>> convolution = forward_convolution<T>(s, y);
  convolution.direct.bias = bias;
  convolution.direct.rectify = rectify;
  convolution.pack_filters(weight, workspace);
  convolution.run(x, workspace);
}

template <class T>
int64_t conv2d_backward_input_workspace(const Conv2d& s, int workers) {
  int64_t most = 0;
  for_phases(s, [&](const Phase& rows, const Phase& columns, int64_t, int64_t) {
    most = larger(most, backward_convolution<T>(s, rows, columns).workspace(workers));
  });
  return most;
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2d& s,
                           const Workspace& workspace) {
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

// Adds one image's share to rows [first, last) of the partial sums.
template <class T>
void add_image(const T* pixels, int64_t row_stride, const T* gradient, int64_t gradient_step,
               int64_t first, int64_t last, T* partial, const Conv2d& s) {
  const Packed<T> layout{1, s.out};
  const int64_t columns = round_up(s.out, Vec<T>::width);
  const int64_t run = s.window.columns * s.in;
  const Segments segments{s.out_height,
                          s.out_width,
                          s.window.stride_columns * s.in,
                          s.window.stride_rows * row_stride,
                          gradient_step,
                          s.out_width * gradient_step};
  Epilogue<T> add;
  add.accumulate = true;
  for (int64_t sliver = 0; sliver < layout.slivers(); ++sliver) {
    const int64_t left = sliver * tile_columns<T>;
    for (int64_t row = first; row < last; row += tile_rows) {
      const int tile = static_cast<int>(smaller(tile_rows, last - row));
      const T* a_rows[tile_rows];
      T* c_rows[tile_rows];
      for (int r = 0; r < tile_rows; ++r) {
        const int64_t index = row + smaller(r, tile - 1);
        a_rows[r] = pixels + index / run * row_stride + index % run;
        c_rows[r] = partial + index * columns + left;
      }
      multiply_tile(a_rows, gradient + left, c_rows, tile, layout.sliver_step(sliver), segments,
                    add);
    }
  }
}

template <class T>
void weight_directly(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                     const Workspace& workspace) {
  using V = Vec<T>;
  const WeightSplit<T> split(s);
  const Correlation<T> seen = forward<T>(s);
  const int64_t pixels_out = s.out_height * s.out_width;
  T* const partials = static_cast<T*>(workspace.data);
  T* const copies = partials + split.chunks * split.partial_size();
  const int64_t cycles = cycles_of(s, V::width);
  parallel(split.chunks * split.groups, cycles, workspace.workers, [&](int64_t index, int worker) {
    const int64_t chunk = index / split.groups, group = index % split.groups;
    const int64_t first = group * split.group_rows;
    const int64_t last = smaller(split.rows, first + split.group_rows);
    T* const partial = partials + chunk * split.partial_size();
    T* const partial_bias = partial + split.rows * split.columns;
    for (int64_t i = first * split.columns; i < last * split.columns; ++i) partial[i] = T(0);
    if (group == 0) {
      for (int64_t i = 0; i < split.columns; ++i) partial_bias[i] = T(0);
    }
    T* const copy = copies + worker * (split.copy_size + split.pack_size);
    T* const pack = copy + split.copy_size;
    const int64_t end = (chunk + 1) * s.batch / split.chunks;
    for (int64_t image = chunk * s.batch / split.chunks; image < end; ++image) {
      const T* const source = x + image * s.height * s.width * s.in;
      const T* pixels = source;
      int64_t row_stride = s.width * s.in;
      if (split.copy_size > 0) {
        copy_rectangle(source, seen.image, seen.top, seen.left, seen.rows_seen(s.out_height),
                       seen.columns_seen(), copy);
        pixels = copy;
        row_stride = seen.columns_seen() * s.in;
      }
      const T* gradient = dy + image * pixels_out * s.out;
      if (split.pack_size > 0) {  // whole registers: the tile reads past the last filter
        for (int64_t p = 0; p < pixels_out; ++p) {
          T* const to = pack + p * split.columns;
          for (int64_t k = 0; k < split.columns; ++k)
            to[k] = k < s.out ? gradient[p * s.out + k] : T(0);
        }
        gradient = pack;
      }
      add_image(pixels, row_stride, gradient, split.gradient_step, first, last, partial, s);
      if (group == 0) {
        for (int64_t k = 0; k < split.columns; k += V::width) {
          V total = V::load(partial_bias + k);
          for (int64_t p = 0; p < pixels_out; ++p) {
            total = total + V::load(gradient + p * split.columns + k);
          }
          total.store(partial_bias + k);
        }
      }
    }
  });
  // The chunks in order, and from (r, s, c) rows back to filters.
  parallel(s.out, split.chunks * split.rows * s.out, workspace.workers, [&](int64_t k, int) {
    for (int64_t row = 0; row <= split.rows; ++row) {
      T total = T(0);
      for (int64_t chunk = 0; chunk < split.chunks; ++chunk) {
        total += partials[chunk * split.partial_size() + row * split.columns + k];
      }
      (row < split.rows ? dweight[k * split.rows + row] : dbias[k]) = total;
    }
  });
}

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
