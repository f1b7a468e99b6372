// A convolution followed by ReLU and max-pooling with windows that do not overlap. Forward is the
// convolution of conv/convolution.h, whose output policy pools the results while they are in the
// cache.
//
// In the backward passes only one pixel of each window has a gradient: the one at the argmax. ReLU
// and dropout can make it zero. These passes therefore read the pooled gradient and the argmax, and
// process its nonzero elements only. This is at most 1 / (window area) of the work of the dense
// passes. The result equals the dense one except for two things. Products with an exact zero are
// left out, so 0 · infinity does not give NaN. The order of the sums differs.
//
// Both use the loop of conv/sparse_backward.h over a nonzero mask. Writing lists of the nonzero
// elements took as long as processing them. For small layers backward input uses
// conv/sparse_backward_2x2.h.
#include "cpu/kernels/conv/convolution.h"
#include "cpu/kernels/conv/image_split.h"
#include "cpu/kernels/conv/sparse_backward.h"
#include "cpu/kernels/conv/sparse_backward_2x2.h"
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/nonzero_mask.h"
#include "cpu/simd/uint16.h"

namespace chainrule::CR_ISA {
namespace {

// Sets the offset of the pixels of each position in a pooling window, relative to the first
// position.
template <class T>
void fill_argmax_offsets(const Conv2d& s, const MaxPool2d& p, const SparseShape<T>& shape,
                         int64_t* argmax_offsets) {
  for (int64_t position = 0; position < p.window.rows * p.window.columns; ++position) {
    argmax_offsets[position] =
        window_offset(s, shape, position / p.window.columns, position % p.window.columns);
  }
}

// The scratch memory of one worker, in elements of T: a padded image, nonzero masks and offsets.
template <class T>
struct WorkerScratch {
  int64_t padded_image, mask, offsets;

  WorkerScratch(const SparseShape<T>& shape, int64_t mask_words, int64_t offset_count)
      : padded_image(shape.padded_image),
        mask(element_count(mask_words)),
        offsets(element_count(offset_count)) {}
  int64_t size() const { return padded_image + mask + offsets; }
  static int64_t element_count(int64_t count) {
    return round_up(count * 8 / static_cast<int64_t>(sizeof(T)), 16);
  }

  uint64_t* mask_in(T* worker_scratch) const {
    return reinterpret_cast<uint64_t*>(worker_scratch + padded_image);
  }
  int64_t* offsets_in(T* worker_scratch) const {
    return reinterpret_cast<int64_t*>(worker_scratch + padded_image + mask);
  }
};

// Backward weight: the partial sums of a chunk of the images. Those of the bias begin at `bias`.
template <class T>
struct Partials {
  int64_t bias, size;
  ImageSplit images;
  int64_t levels;  // buffers of subtotals

  Partials(const Conv2d& s, const MaxPool2d& p, const SparseShape<T>& shape)
      : bias(s.out * s.window.rows * shape.padded_filter_row),
        size(round_up(bias + s.out, 16)),
        images(s.batch, size * static_cast<int64_t>(sizeof(T))) {
    // Two successive subtotals have more than max_sparse_terms windows.
    const int64_t windows = images.max_images() * p.out_height * p.out_width;
    const bool one = windows <= max_sparse_terms;
    levels = Subtotals<T>::levels(one ? 1 : 2 * windows / max_sparse_terms + 2);
  }
};

int64_t window_area(const MaxPool2d& p) { return p.window.rows * p.window.columns; }
// The area, rounded up to a power of two.
int64_t argmax_table_size(const MaxPool2d& p) {
  int64_t size = 1;
  while (size < window_area(p)) size *= 2;
  return size;
}

// Returns the number of window rows whose pixels fit the L1 cache. The more windows a band has, the
// less often a filter row of dweight is loaded and stored.
template <class T>
int64_t band_rows(const Conv2d& s, const MaxPool2d& p, const SparseShape<T>& shape) {
  const int64_t step = p.window.rows * shape.rows.copy_stride();
  const int64_t fit = min(l1_bytes / max(1, shape.input_row * static_cast<int64_t>(sizeof(T))),
                          step * max_sparse_terms / max(1, p.out_width));
  return min(max(1, p.out_height), max(1, (fit - s.window.rows) / step));
}

template <class T>
int64_t sparse_cycles(const Conv2d& s, const MaxPool2d& p, const SparseShape<T>& shape) {
  return s.batch * p.out_height * p.out_width * s.out * s.window.rows *
         (shape.padded_filter_row / Vec<T>::width + 2);
}

template <class T>
Convolution<T, PoolOutput<T>> pooled_convolution(const Conv2d& s, const MaxPool2d& p,
                                                 T* y = nullptr, uint16_t* argmax = nullptr) {
  return {forward_gemm<T>(s),
          s.batch,
          s.height * s.width * s.in,
          convolution_cycles(s, Vec<T>::width),
          {y, argmax, p}};
}

}  // namespace

template <class T>
int64_t conv2d_pooled_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  return pooled_convolution<T>(s, p).workspace_size(workers);
}

template <class T>
void conv2d_pooled(const T* x, const T* weight, const T* bias, T* y, uint16_t* argmax, bool relu,
                   const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  Convolution<T, PoolOutput<T>> convolution = pooled_convolution(s, p, y, argmax);
  convolution.gemm.bias = bias;
  convolution.gemm.relu = relu;
  convolution.pack_filters(weight, workspace);
  convolution.run(x, workspace);
}

namespace {

template <class T>
WorkerScratch<T> backward_weight_scratch(const Conv2d& s, const MaxPool2d& p,
                                         const SparseShape<T>& shape) {
  const int64_t windows = band_rows(s, p, shape) * p.out_width;
  return {shape, s.out * ceil_div(windows, 64), argmax_table_size(p) + windows};
}

}  // namespace

template <class T>
int64_t conv2d_pooled_backward_weight_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  const SparseShape<T> shape(s);
  const Partials<T> partials(s, p, shape);
  return (partials.images.chunks * (1 + partials.levels) * partials.size +
          workers * backward_weight_scratch(s, p, shape).size()) *
         static_cast<int64_t>(sizeof(T));
}

template <class T>
void conv2d_pooled_backward_weight(const T* dy, const uint16_t* argmax, const T* x, T* dweight,
                                   T* dbias, const Conv2d& s, const MaxPool2d& p,
                                   const Workspace& workspace) {
  if (s.out == 0) return;  // the batch may be 2^40 empty images
  using V = Vec<T>;
  const SparseShape<T> shape(s);
  const Partials<T> partials(s, p, shape);
  const WorkerScratch<T> scratch = backward_weight_scratch(s, p, shape);
  const int64_t rows = s.window.rows, window_rows = band_rows(s, p, shape);
  const RowAccumulator<T, WindowMask<T>> accumulator(rows, shape.filter_row);
  T* const sums = static_cast<T*>(workspace.data);
  T* const buffers = sums + partials.images.chunks * partials.size;
  T* const worker_scratches = buffers + partials.images.chunks * partials.levels * partials.size;
  // A task is a chunk of the images.
  const int64_t band_cycles =
      sparse_cycles(s, p, shape) / max(1, s.batch * p.out_height) * window_rows;
  const auto task = [&](int64_t chunk, int w) {
    T* const partial = sums + chunk * partials.size;
    T* const copy = worker_scratches + w * scratch.size();
    uint64_t* const mask = scratch.mask_in(copy);
    int64_t* const argmax_offsets = scratch.offsets_in(copy);
    int64_t* const offsets = argmax_offsets + argmax_table_size(p);
    fill_argmax_offsets(s, p, shape, argmax_offsets);
    for (int64_t i = window_area(p); i < argmax_table_size(p); ++i) argmax_offsets[i] = 0;
    for (int64_t i = 0; i < window_rows * p.out_width; ++i) {
      offsets[i] = window_offset(s, shape, i / p.out_width * p.window.rows,
                                 i % p.out_width * p.window.columns);
    }
    for (int64_t i = 0; i < partials.size; ++i) partial[i] = T(0);
    for (int64_t i = shape.rows.copy_length() * shape.input_row; i < shape.padded_image; ++i)
      copy[i] = T(0);
    const Subtotals<T> subtotals(buffers + chunk * partials.levels * partials.size, partials.size);
    int64_t terms = 0, pushed = 0;
    const int64_t end = partials.images.end(chunk);
    for (int64_t image = partials.images.begin(chunk); image < end; ++image) {
      copy_windows(x + image * s.height * s.width * s.in, ImageShape{s.height, s.width, s.in},
                   -s.pad_top, -s.pad_left, shape.rows, shape.columns, copy);
      for (int64_t band = 0; band < p.out_height; band += window_rows) {
        if (!keep_going(band_cycles)) return;
        const int64_t band_height = min(window_rows, p.out_height - band);
        // A band of more than one row is not longer than max_sparse_terms.
        for (int64_t left = 0; left < p.out_width; left += max_sparse_terms) {
          const int64_t windows = band_height * min(max_sparse_terms, p.out_width - left);
          const int64_t first = ((image * p.out_height + band) * p.out_width + left) * s.out;
          if (terms > 0 && terms + windows > max_sparse_terms) {
            subtotals.push(pushed++, partial, 0, partials.size);
            terms = 0;
          }
          terms += windows;
          nonzero_mask_of_columns(dy + first, windows, s.out, mask, ceil_div(windows, 64));
          const int64_t corner =
              window_offset(s, shape, band * p.window.rows, left * p.window.columns);
          for (int64_t k = 0; k < s.out; ++k) {
            accumulator.add({.target = partial + k * rows * shape.padded_filter_row,
                             .target_row_stride = shape.padded_filter_row,
                             .source = copy + corner,
                             .source_row_stride = shape.input_row,
                             .mask = mask + k * ceil_div(windows, 64),
                             .mask_words = ceil_div(windows, 64),
                             .elements = {dy + first + k, argmax + first + k, s.out, offsets,
                                          argmax_offsets, argmax_table_size(p) - 1}});
          }
          for_each_vector<T>(s.out, [&](int64_t k, auto lanes) {
            V total = lanes.load(partial + partials.bias + k);
            for (int64_t i = 0; i < windows; ++i) {
              total = total + lanes.load(dy + first + i * s.out + k);
            }
            lanes.store(total, partial + partials.bias + k);
          });
        }
      }
    }
    subtotals.add_to(pushed, partial, 0, partials.size);
  };
  parallel_for(partials.images.chunks, sparse_cycles(s, p, shape), workspace.workers, task);
  parallel_for(
      s.out, partials.images.chunks * partials.size, workspace.workers, [&](int64_t k, int) {
        const auto add_up = [&](int64_t at, int64_t count, T* to) {
          for_each_vector<T>(count, [&](int64_t i, auto lanes) {
            lanes.store(sum_partials(sums + at + i, partials.images.chunks, partials.size, lanes),
                        to + i);
          });
        };
        for (int64_t r = 0; r < rows; ++r) {
          add_up((k * rows + r) * shape.padded_filter_row, shape.filter_row,
                 dweight + (k * rows + r) * shape.filter_row);
        }
        add_up(partials.bias + k, 1, dbias + k);
      });
}

namespace {

// Fills mask[position][...] for one window: the filters whose argmax is `position` and whose
// gradient is nonzero.
template <class T>
void nonzero_masks_by_argmax(const T* dy, const uint16_t* argmax, int64_t filters, int64_t area,
                             uint64_t* mask) {
  using V = Vec<T>;
  const int64_t mask_words = ceil_div(filters, 64);
  for (int64_t i = 0; i < area * mask_words; ++i) mask[i] = 0;
  int64_t k = 0;
  if (area <= V::width) {
    for (; k + V::width <= filters; k += V::width) {
      const auto positions = load_uint16<T>(argmax + k);
      const uint64_t nonzero = ~mask_bits<T>(V::load(dy + k) == V::zero());
      for (int64_t position = 0; position < area; ++position) {
        const auto at_position = positions == static_cast<typename Integer<T>::type>(position);
        mask[position * mask_words + k / 64] |= (mask_bits<T>(at_position) & nonzero) << k % 64;
      }
    }
  }
  for (; k < filters; ++k) {
    mask[checked_argmax(argmax + k, area) * mask_words + k / 64] |=
        static_cast<uint64_t>(!(dy[k] == T(0))) << k % 64;
  }
}

// The loop for a layer and the layout of its packed filters.
template <class T>
struct BackwardInputAlgorithm {
  AxpyWindowFunction<T> fused_2x2;  // null if there is no instance for the layer
  PackedFilterRows<T> filters;

  BackwardInputAlgorithm(const Conv2d& s, const MaxPool2d& p, const SparseShape<T>& shape)
      : fused_2x2(window_instance<T>(s, p)), filters(packed_filter_rows(s, shape)) {
    if (!fused_2x2) return;
    const int64_t before = round_up(s.in, Vec<T>::width);
    filters = {s.window.rows, before, before + window_row_vectors<T>(s) * Vec<T>::width};
  }
};

// Backward input adds some filters per pass, or some pooling windows of one filter, so that a pixel
// has at most max_sparse_terms terms. Then its sums are a subtotal.
struct BackwardInputPasses {
  int64_t filters, windows;
  bool by_windows;
  int64_t levels;  // buffers of subtotals

  BackwardInputPasses(const Conv2d& s, const MaxPool2d& p)
      : filters(sparse_pass_filters(s)),
        windows(max(1, p.out_width)),
        by_windows(s.window.rows * s.window.columns > max_sparse_terms) {
    int64_t count = ceil_div(s.out, filters);
    if (by_windows) {
      windows = min(windows, max_sparse_terms);
      // Two successive subtotals have more than max_sparse_terms windows.
      count *= 2 * p.out_height * p.out_width / max_sparse_terms + 2;
    }
    levels = Subtotals<float>::levels(count);
  }
};

template <class T>
WorkerScratch<T> backward_input_scratch(const Conv2d& s, const MaxPool2d& p,
                                        const SparseShape<T>& shape) {
  const BackwardInputPasses passes(s, p);
  return {shape, min(p.out_width, passes.windows) * window_area(p) * ceil_div(passes.filters, 64),
          window_area(p)};
}

}  // namespace

template <class T>
int64_t conv2d_pooled_backward_input_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  const SparseShape<T> shape(s);
  const int64_t packed = BackwardInputAlgorithm<T>(s, p, shape).filters.size(s);
  const int64_t buffers = BackwardInputPasses(s, p).levels * shape.padded_image;
  return (packed + workers * (backward_input_scratch(s, p, shape).size() + buffers)) *
         static_cast<int64_t>(sizeof(T));
}

template <class T>
void conv2d_pooled_backward_input(const T* dy, const uint16_t* argmax, const T* weight, T* dx,
                                  const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  if (s.in == 0) return;
  const SparseShape<T> shape(s);
  const WorkerScratch<T> scratch = backward_input_scratch(s, p, shape);
  const BackwardInputPasses passes(s, p);
  const int64_t area = window_area(p), rows = s.window.rows;
  const BackwardInputAlgorithm<T> algorithm(s, p, shape);
  const PackedFilterRows<T>& filters = algorithm.filters;
  T* const packed = static_cast<T*>(workspace.data);
  T* const worker_scratches = packed + filters.size(s);
  T* const buffers = worker_scratches + workspace.workers * scratch.size();
  const int64_t band_cycles = sparse_cycles(s, p, shape) / max(1, s.batch * p.out_height);
  parallel_for(s.out, s.out * rows * shape.filter_row, workspace.workers,
               [&](int64_t k, int) { filters.pack(weight, k, s, packed); });
  parallel_for(s.batch, sparse_cycles(s, p, shape), workspace.workers, [&](int64_t image, int w) {
    T* const copy = worker_scratches + w * scratch.size();
    uint64_t* const mask = scratch.mask_in(copy);
    int64_t* const argmax_offsets = scratch.offsets_in(copy);
    fill_argmax_offsets(s, p, shape, argmax_offsets);
    fill_zero(copy, shape.padded_image);
    const Subtotals<T> subtotals(buffers + w * passes.levels * shape.padded_image,
                                 shape.padded_image);
    int64_t terms = 0, pushed = 0;
    const auto push = [&] {
      subtotals.push(pushed++, copy, 0, shape.padded_image);
      terms = 0;
    };
    // Adds the gradients of `count` filters in `length` pooling windows, which begin at `left`.
    const auto add = [&](int64_t filter, int64_t count, int64_t band, int64_t left,
                         int64_t length) {
      const int64_t mask_words = ceil_div(count, 64);
      const T* const g = dy + ((image * p.out_height + band) * p.out_width + left) * s.out + filter;
      for (int64_t i = 0; i < length; ++i) {
        nonzero_masks_by_argmax(g + i * s.out, argmax + (g - dy) + i * s.out, count, area,
                                mask + i * area * mask_words);
      }
      const auto pixels = [&](int64_t i) {
        return copy + window_offset(s, shape, band * p.window.rows, (left + i) * p.window.columns);
      };
      if (algorithm.fused_2x2 && all_finite((length - 1) * s.out + count, g)) {
        for (int64_t i = 0; i < length; ++i) {
          algorithm.fused_2x2(
              {.pixels = pixels(i),
               .pixel_row_stride = shape.input_row,
               .filters = packed + filters.offset(s, 0) + filter * filters.filter_stride(s, 0),
               .filter_stride = filters.filter_stride(s, 0),
               .filter_row_stride = filters.step,
               .channels = s.in,
               .mask = mask + i * area * mask_words,
               .mask_words = mask_words,
               .g = g + i * s.out});
        }
        return;
      }
      for (int64_t r = 0; r < rows; r += filters.group_rows) {
        const int64_t height = min(filters.group_rows, rows - r);
        const int64_t filter_stride = filters.filter_stride(s, r);
        const RowAccumulator<T, FilterMask<T>> accumulator(height, shape.filter_row);
        for (int64_t i = 0; i < length; ++i) {
          for (int64_t position = 0; position < area; ++position) {
            accumulator.add({.target = pixels(i) + r * shape.input_row + argmax_offsets[position],
                             .target_row_stride = shape.input_row,
                             .source = packed + filters.offset(s, r) + filter * filter_stride,
                             .source_row_stride = filters.step,
                             .mask = mask + (i * area + position) * mask_words,
                             .mask_words = mask_words,
                             .elements = {g + i * s.out, filter_stride}});
          }
        }
      }
    };
    for (int64_t filter = 0; filter < s.out; filter += passes.filters) {
      if (filter > 0) push();
      for (int64_t band = 0; band < p.out_height; ++band) {
        if (!keep_going(band_cycles)) return;
        for (int64_t left = 0; left < p.out_width; left += passes.windows) {
          const int64_t length = min(passes.windows, p.out_width - left);
          if (passes.by_windows && terms + length > max_sparse_terms) push();
          terms += length;
          add(filter, min(passes.filters, s.out - filter), band, left, length);
        }
      }
    }
    subtotals.add_to(pushed, copy, 0, shape.padded_image);
    // Pixels under no window stay zero.
    copy_from_windows(copy, shape.rows, shape.columns, s.pad_top, s.pad_left,
                      ImageShape{s.height, s.width, s.in}, dx + image * s.height * s.width * s.in);
  });
}

CR_INSTANTIATE(conv2d_pooled_workspace);
CR_INSTANTIATE(conv2d_pooled);
CR_INSTANTIATE(conv2d_pooled_backward_weight_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_weight);
CR_INSTANTIATE(conv2d_pooled_backward_input_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_input);

}  // namespace chainrule::CR_ISA
