// Convolution, eq. (58)–(60), for every filter and channel, and its two backward passes. The three
// passes are implicit GEMMs (no im2col) or one of the faster algorithms of conv/.
//
// forward          y[p, :] = Σ over the window of x[p + (r, s), :] · weight[:, r, s, :]ᵀ
// backward input   The same over dy, with each filter rotated by 180°. A stride splits the pixels
//                  of x into stride_rows x stride_columns phases. The pixels of one phase use the
//                  same taps of a filter, so each phase is a convolution of stride 1 with them.
// backward weight  dweight[:, r, s, c] = Σ_p dy[p, :] x[p + (r, s), c]. A row of the product is
//                  (r, s, c), a column is a filter. The sum runs over the pixels of an image.
#include "cpu/kernels/conv/backward_weight.h"
#include "cpu/kernels/conv/convolution.h"
#include "cpu/kernels/conv/sparse_backward.h"
#include "cpu/kernels/conv/winograd_backward_weight.h"
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The taps of one axis of a filter that contribute to the pixels of one phase of the input.
struct Phase {
  int64_t count;  // number of pixels phase, phase + stride, ... below the length of the axis
  int64_t first;  // the first tap; the next ones are `stride` apart
  int64_t taps;
  int64_t
      corner;  // for the first pixel, the gradient pixel under the first tap of the rotated filter
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
ImplicitGemm<T> backward_phase(const Conv2d& s, const Phase& rows, const Phase& columns) {
  return {
      .image = {s.out_height, s.out_width, s.out},
      .window_rows = rows.taps,
      .window_columns = columns.taps,
      .top = rows.corner,
      .left = columns.corner,
      .stride_rows = 1,
      .stride_columns = 1,
      .out_rows = rows.count,
      .out_columns = columns.count,
      // A longer stride gives one pixel.
      .output_row_stride = min(s.window.stride_rows, s.height) * s.width * s.in,
      .output_column_stride = min(s.window.stride_columns, s.width) * s.in,
      .filters = {rows.taps * columns.taps * s.out, s.in},
  };
}

// Calls f(row phase, column phase, their indices) for every phase that has pixels.
template <class F>
void for_each_phase(const Conv2d& s, F f) {
  const Window& w = s.window;
  for (int64_t i = 0; i < min(w.stride_rows, s.height); ++i) {
    const Phase rows = phase_of(i, s.height, w.stride_rows, s.pad_top, w.rows);
    for (int64_t j = 0; j < min(w.stride_columns, s.width); ++j) {
      const Phase columns = phase_of(j, s.width, w.stride_columns, s.pad_left, w.columns);
      f(rows, columns, i, j);
    }
  }
}

template <class T>
Convolution<T, StoreOutput<T>> backward_convolution(const Conv2d& s, const Phase& rows,
                                                    const Phase& columns, T* dx = nullptr) {
  return {backward_phase<T>(s, rows, columns),
          s.batch,
          s.out_height * s.out_width * s.out,
          convolution_cycles(s, Vec<T>::width) / s.window.stride_rows / s.window.stride_columns,
          {dx, s.height * s.width * s.in}};
}

template <class T>
Convolution<T, StoreOutput<T>> forward_convolution(const Conv2d& s, T* y = nullptr) {
  return {forward_gemm<T>(s),
          s.batch,
          s.height * s.width * s.in,
          convolution_cycles(s, Vec<T>::width),
          {y, s.out_height * s.out_width * s.out}};
}

}  // namespace

template <class T>
int64_t conv2d_workspace(const Conv2d& s, int workers) {
  return forward_convolution<T>(s).workspace_size(workers);
}

template <class T>
void conv2d(const T* x, const T* weight, const T* bias, T* y, bool relu, const Conv2d& s,
            const Workspace& workspace) {
  Convolution<T, StoreOutput<T>> convolution = forward_convolution<T>(s, y);
  convolution.gemm.bias = bias;
  convolution.gemm.relu = relu;
  convolution.pack_filters(weight, workspace);
  convolution.run(x, workspace);
}

namespace {

// Backward input as a scatter, for few channels. In the implicit GEMM of a phase they would fill
// only a part of a vector. Each pixel of dy adds its filter rows, of columns * channels elements,
// to the pixels of x under it. See sparse_backward.h.
template <class T>
bool uses_row_accumulation(const Conv2d& s) {
  const int64_t width = Vec<T>::width, columns = s.window.columns;
  // A pixel has a term per tap of a filter, which are added in order.
  return s.window.rows * columns <= max_sparse_terms &&
         3 * ceil_div(columns * s.in, width) <= 2 * columns * ceil_div(s.in, width);
}

template <class T>
struct RowAccumulation {
  SparseShape<T> shape;
  PackedFilterRows<T> filters;
  int64_t packed_size;
  int64_t pass_filters, mask_words, levels;  // see sparse_pass_filters

  explicit RowAccumulation(const Conv2d& s)
      : shape(s),
        filters(packed_filter_rows(s, shape)),
        packed_size(filters.size(s)),
        pass_filters(sparse_pass_filters(s)),
        mask_words(ceil_div(pass_filters, 64)),
        levels(Subtotals<T>::levels(ceil_div(s.out, pass_filters))) {}
  // The mask of a pass, and that of the last pass, which may be shorter.
  int64_t mask_size() const {
    return round_up(ceil_div(2 * mask_words * 8, static_cast<int64_t>(sizeof(T))), 16);
  }
  int64_t workspace_size(int workers) const {
    return (packed_size + mask_size() + workers * (1 + levels) * shape.padded_image) *
           static_cast<int64_t>(sizeof(T));
  }
};

template <class T>
void backward_input_by_rows(const T* dy, const T* weight, T* dx, const Conv2d& s,
                            const Workspace& workspace) {
  const RowAccumulation<T> layout(s);
  const SparseShape<T>& shape = layout.shape;
  const int64_t rows = s.window.rows, pixels = s.out_height * s.out_width;
  constexpr int64_t pixels_per_part = 256;
  const int64_t pixel_cycles = s.out * rows * (shape.filter_row / Vec<T>::width + 1);
  T* const packed = static_cast<T*>(workspace.data);
  uint64_t* const mask = reinterpret_cast<uint64_t*>(packed + layout.packed_size);
  T* const copies = packed + layout.packed_size + layout.mask_size();
  T* const buffers = copies + workspace.workers * shape.padded_image;
  parallel_for(s.out, s.out * rows * shape.filter_row, workspace.workers,
               [&](int64_t k, int) { layout.filters.pack(weight, k, s, packed); });
  const int64_t last_pass =
      s.out - (ceil_div(s.out, layout.pass_filters) - 1) * layout.pass_filters;
  for (int64_t i = 0; i < layout.mask_words; ++i) {  // all filters, because 0 · NaN must give NaN
    const auto bits = [i](int64_t count) {
      const int64_t left = max(0, count - 64 * i);
      return left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    };
    mask[i] = bits(layout.pass_filters);
    mask[layout.mask_words + i] = bits(last_pass);
  }
  parallel_for(
      s.batch, convolution_cycles(s, Vec<T>::width), workspace.workers, [&](int64_t image, int w) {
        T* const copy = copies + w * shape.padded_image;
        fill_zero(copy, shape.padded_image);
        const Subtotals<T> subtotals(buffers + w * layout.levels * shape.padded_image,
                                     shape.padded_image);
        int64_t pushed = 0;
        for (int64_t filter = 0; filter < s.out; filter += layout.pass_filters) {
          if (filter > 0) subtotals.push(pushed++, copy, 0, shape.padded_image);
          const bool is_last = filter + layout.pass_filters >= s.out;
          for (int64_t r = 0; r < rows; r += layout.filters.group_rows) {
            const int64_t height = min(layout.filters.group_rows, rows - r);
            const int64_t filter_stride = layout.filters.filter_stride(s, r);
            const RowAccumulator<T, FilterMask<T>> accumulator(height, shape.filter_row);
            for (int64_t pixel = 0; pixel < pixels; ++pixel) {
              if (pixel % pixels_per_part == 0 && !keep_going(pixels_per_part * pixel_cycles)) {
                return;
              }
              accumulator.add(
                  {.target = copy + r * shape.input_row +
                             window_offset(s, shape, pixel / s.out_width, pixel % s.out_width),
                   .target_row_stride = shape.input_row,
                   .source = packed + layout.filters.offset(s, r) + filter * filter_stride,
                   .source_row_stride = layout.filters.step,
                   .mask = mask + (is_last ? layout.mask_words : 0),
                   .mask_words = layout.mask_words,
                   .elements = {dy + (image * pixels + pixel) * s.out + filter, filter_stride}});
            }
          }
        }
        subtotals.add_to(pushed, copy, 0, shape.padded_image);
        copy_from_windows(copy, shape.rows, shape.columns, s.pad_top, s.pad_left,
                          ImageShape{s.height, s.width, s.in},
                          dx + image * s.height * s.width * s.in);
      });
}

}  // namespace

template <class T>
int64_t conv2d_backward_input_workspace(const Conv2d& s, int workers) {
  if (uses_row_accumulation<T>(s)) return RowAccumulation<T>(s).workspace_size(workers);
  int64_t largest = 0;
  for_each_phase(s, [&](const Phase& rows, const Phase& columns, int64_t, int64_t) {
    largest = max(largest, backward_convolution<T>(s, rows, columns).workspace_size(workers));
  });
  return largest;
}

template <class T>
void conv2d_backward_input(const T* dy, const T* weight, T* dx, const Conv2d& s,
                           const Workspace& workspace) {
  if (uses_row_accumulation<T>(s)) return backward_input_by_rows(dy, weight, dx, s, workspace);
  const Window& w = s.window;
  for_each_phase(s, [&](const Phase& rows, const Phase& columns, int64_t i, int64_t j) {
    if (!keep_going(0)) return;
    const auto convolution =
        backward_convolution<T>(s, rows, columns, dx + (i * s.width + j) * s.in);
    const PackedMatrix<T>& filters = convolution.gemm.filters;
    parallel_for(filters.panels(), filters.size(), workspace.workers, [&](int64_t panel, int) {
      int64_t row = 0;
      for (int64_t r = rows.taps - 1; r >= 0; --r) {
        for (int64_t q = columns.taps - 1; q >= 0; --q, row += s.out) {
          const int64_t tap =
              (rows.first + r * w.stride_rows) * w.columns + columns.first + q * w.stride_columns;
          pack_panel(weight + tap * s.in, w.rows * w.columns * s.in, false, filters, panel, row,
                     s.out, static_cast<T*>(workspace.data));
        }
      }
    });
    convolution.run(dy, workspace);
  });
}

namespace {

template <class T>
WinogradBackwardWeight<T> winograd_backward_weight(const Conv2d& s) {
  return {.image = {s.height, s.width, s.in},
          .gradient = {s.out_height, s.out_width, s.out},
          .top = -s.pad_top,
          .left = -s.pad_left,
          .tiles = {s.batch, s.out_height, s.out_width}};
}

// Returns false if the images have too much contrast, or if a result is not finite.
template <class T>
bool backward_weight_by_winograd(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                                 const Workspace& workspace) {
  const WinogradBackwardWeight<T> winograd = winograd_backward_weight<T>(s);
  T* const sums = static_cast<T*>(workspace.data);
  T* const after_sums = sums + winograd.sums_size();
  auto* const reports = reinterpret_cast<typename WinogradBackwardWeight<T>::Report*>(after_sums);
  T* const worker_scratch = after_sums + winograd.reports_size();
  parallel_for(winograd.tasks(), convolution_cycles(s, Vec<T>::width) / 2, workspace.workers,
               [&](int64_t task, int worker) {
                 winograd.run(x, dy, task, sums, reports,
                              worker_scratch + worker * winograd.worker_scratch_size());
               });
  if (!winograd.accurate(reports)) return false;
  bool* const not_finite = reinterpret_cast<bool*>(worker_scratch);
  const int64_t vectors = ceil_div(s.out, Vec<T>::width);
  parallel_for(vectors, winograd.chunks() * winograd.sum_size(), workspace.workers,
               [&](int64_t index, int) {
                 not_finite[index] = !winograd.reduce(sums, index * Vec<T>::width, dweight, dbias);
               });
  for (int64_t index = 0; index < vectors; ++index) {
    if (not_finite[index]) return false;
  }
  return true;
}

}  // namespace

template <class T>
int64_t conv2d_backward_weight_workspace(const Conv2d& s, int workers) {
  const int64_t gemm = BackwardWeightSplit<T>(s).workspace_size(workers);
  if (!WinogradTiles::supports(s.batch, forward_gemm<T>(s))) return gemm;
  return max(gemm, winograd_backward_weight<T>(s).workspace_size(workers));
}

template <class T>
void conv2d_backward_weight(const T* dy, const T* x, T* dweight, T* dbias, const Conv2d& s,
                            const Workspace& workspace) {
  if (s.out == 0) return;  // the batch may be 2^40 empty images
  if (!WinogradTiles::supports(s.batch, forward_gemm<T>(s)) ||
      convolution_precision() == ConvolutionPrecision::highest ||
      !backward_weight_by_winograd(dy, x, dweight, dbias, s, workspace)) {
    backward_weight_gemm(dy, x, dweight, dbias, s, workspace);
  }
}

CR_INSTANTIATE(conv2d_workspace);
CR_INSTANTIATE(conv2d);
CR_INSTANTIATE(conv2d_backward_input_workspace);
CR_INSTANTIATE(conv2d_backward_input);
CR_INSTANTIATE(conv2d_backward_weight_workspace);
CR_INSTANTIATE(conv2d_backward_weight);

}  // namespace chainrule::CR_ISA
