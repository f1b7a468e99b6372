// A convolution with the max-pooling behind it, whose windows do not overlap. Forward is the
// convolution of convolution.h, whose results are pooled before they leave the cache. The two
// backward passes:
//
// Only one pixel of each window, where its maximum stood, has a gradient, and only if the rectifier
// and dropout let it through. So instead of the gradient by every pixel, these take the pooled one
// with the maxima's positions, and do the work of its non-zero elements alone: at most 1 / (window
// area) of the dense passes'. The result is theirs, but for products with an exact zero, which are
// left out (0 · infinity no longer gives NaN) and the order of the sums.
//
// Both are the one loop of runs.h over the elements that are not zero, which are found as sets of
// bits: writing lists of them took as long as working them off. Backward input has a second loop,
// windows.h, for small layers.
#include "cpu/kernels/conv/convolution.h"
#include "cpu/kernels/conv/sparse_backward.h"
#include "cpu/kernels/conv/sparse_backward_2x2.h"
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/nonzero_mask.h"

namespace chainrule::CR_ISA {
namespace {

// How far the pixels of each place in a pooling window begin behind those of the first one.
template <class T>
void place_corners(const Conv2d& s, const MaxPool2d& p, const Sizes<T>& sizes, int64_t* corners) {
  for (int64_t place = 0; place < p.window.rows * p.window.columns; ++place) {
    corners[place] = corner(s, sizes, place / p.window.columns, place % p.window.columns);
  }
}

// What one task needs for itself, in units of T: the image with its border laid out; sets of bits;
// and numbers: the places' corners, and what else the pass wants.
template <class T>
struct Own {
  int64_t image, words, numbers;

  Own(const Sizes<T>& sizes, int64_t word_count, int64_t number_count)
      : image(sizes.image), words(units(word_count)), numbers(units(number_count)) {}
  int64_t size() const { return image + words + numbers; }
  static int64_t units(int64_t count) {
    return round_up(count * 8 / static_cast<int64_t>(sizeof(T)), 16);
  }

  uint64_t* words_in(T* own) const { return reinterpret_cast<uint64_t*>(own + image); }
  int64_t* numbers_in(T* own) const { return reinterpret_cast<int64_t*>(own + image + words); }
};

// Backward weight: images in chunks with partial sums of their own, as in conv2d.cpp.
template <class T>
struct Partials {
  static constexpr int64_t most_chunks = 16;
  static constexpr int64_t most_bytes = int64_t{16} << 20;
  int64_t chunks, size, bias;

  Partials(const Conv2d& s, const Sizes<T>& sizes) {
    bias = s.out * s.window.rows * sizes.run_padded;
    size = round_up(bias + s.out, 16);
    const int64_t bytes = larger(1, size * static_cast<int64_t>(sizeof(T)));
    chunks = larger(1, smaller(smaller(most_chunks, s.batch), most_bytes / bytes));
  }
};

int64_t area_of(const MaxPool2d& p) { return p.window.rows * p.window.columns; }

// Rows of windows whose pixels stay in the first-level cache: the longer a filter's list, the less
// often its run of dweight is loaded and stored.
template <class T>
int64_t band_rows(const Conv2d& s, const MaxPool2d& p, const Sizes<T>& sizes) {
  const int64_t step = p.window.rows * s.window.stride_rows;
  const int64_t fit = first_level_bytes / larger(1, sizes.row * static_cast<int64_t>(sizeof(T)));
  return smaller(larger(1, p.out_height), larger(1, (fit - s.window.rows) / step));
}

template <class T>
int64_t sparse_cycles(const Conv2d& s, const MaxPool2d& p, const Sizes<T>& sizes) {
  return s.batch * p.out_height * p.out_width * s.out * s.window.rows *
         (sizes.run_padded / Vec<T>::width + 2);
}

template <class T>
Convolution<T, Pools<T>> pooled_convolution(const Conv2d& s, const MaxPool2d& p, T* y = nullptr,
                                            uint16_t* argmax = nullptr) {
  return {forward<T>(s),
          s.batch,
          s.height * s.width * s.in,
          cycles_of(s, Vec<T>::width),
          {y, argmax, p}};
}

}  // namespace

template <class T>
int64_t conv2d_pooled_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  return pooled_convolution<T>(s, p).workspace(workers);
}

template <class T>
void conv2d_pooled(const T* x, const T* weight, const T* bias, T* y, uint16_t* argmax, bool relu,
                   const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  Convolution<T, Pools<T>> convolution = pooled_convolution(s, p, y, argmax);
  convolution.direct.bias = bias;
  convolution.direct.relu = relu;
  convolution.pack_filters(weight, workspace);
  convolution.run(x, workspace);
}

namespace {

template <class T>
Own<T> own_of_weight(const Conv2d& s, const MaxPool2d& p, const Sizes<T>& sizes) {
  const int64_t windows = band_rows(s, p, sizes) * p.out_width;
  return {sizes, s.out * ceil_div(windows, 64), area_of(p) + windows};
}

}  // namespace

template <class T>
int64_t conv2d_pooled_backward_weight_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  const Sizes<T> sizes(s);
  const Partials<T> partials(s, sizes);
  return (partials.chunks * partials.size + workers * own_of_weight(s, p, sizes).size()) *
         static_cast<int64_t>(sizeof(T));
}

template <class T>
void conv2d_pooled_backward_weight(const T* dy, const uint16_t* argmax, const T* x, T* dweight,
                                   T* dbias, const Conv2d& s, const MaxPool2d& p,
                                   const Workspace& workspace) {
  if (s.out == 0) return;  // the batch may be 2^40 empty images
  using V = Vec<T>;
  const Sizes<T> sizes(s);
  const Partials<T> partials(s, sizes);
  const Own<T> own = own_of_weight(s, p, sizes);
  const int64_t rows = s.window.rows, most = band_rows(s, p, sizes);
  const Runs<T, OfWindows<T>> runs(rows, sizes.run);
  T* const sums = static_cast<T*>(workspace.data);
  T* const owned = sums + partials.chunks * partials.size;
  // A chunk of the images.
  const auto task = [&](int64_t chunk, int w) {
    T* const partial = sums + chunk * partials.size;
    T* const copy = owned + w * own.size();
    uint64_t* const words = own.words_in(copy);
    int64_t* const corners = own.numbers_in(copy);
    int64_t* const offsets = corners + area_of(p);
    place_corners(s, p, sizes, corners);
    for (int64_t i = 0; i < most * p.out_width; ++i) {
      offsets[i] =
          corner(s, sizes, i / p.out_width * p.window.rows, i % p.out_width * p.window.columns);
    }
    for (int64_t i = 0; i < partials.size; ++i) partial[i] = T(0);
    for (int64_t i = sizes.rows_seen * sizes.row; i < sizes.image; ++i) copy[i] = T(0);
    const int64_t end = (chunk + 1) * s.batch / partials.chunks;
    for (int64_t image = chunk * s.batch / partials.chunks; image < end; ++image) {
      copy_rectangle(x + image * s.height * s.width * s.in, Image{s.height, s.width, s.in},
                     -s.pad_top, -s.pad_left, sizes.rows_seen, sizes.columns_seen, copy);
      for (int64_t band = 0; band < p.out_height; band += most) {
        const int64_t windows = smaller(most, p.out_height - band) * p.out_width;
        const int64_t first = (image * p.out_height + band) * p.out_width * s.out;
        sets_of_columns(dy + first, windows, s.out, words, ceil_div(windows, 64));
        for (int64_t k = 0; k < s.out; ++k) {
          runs.add({.target = partial + k * rows * sizes.run_padded,
                    .target_row = sizes.run_padded,
                    .source = copy + corner(s, sizes, band * p.window.rows, 0),
                    .source_row = sizes.row,
                    .words = words + k * ceil_div(windows, 64),
                    .word_count = ceil_div(windows, 64),
                    .set = {dy + first + k, argmax + first + k, s.out, offsets, corners}});
        }
        for_registers<T>(s.out, [&](int64_t k, auto lanes) {
          V total = lanes.load(partial + partials.bias + k);
          for (int64_t i = 0; i < windows; ++i) {
            total = total + lanes.load(dy + first + i * s.out + k);
          }
          lanes.store(total, partial + partials.bias + k);
        });
      }
    }
  };
  parallel(partials.chunks, sparse_cycles(s, p, sizes), workspace.workers, task);
  parallel(s.out, partials.chunks * partials.size, workspace.workers, [&](int64_t k, int) {
    const auto add_up = [&](int64_t at, int64_t count, T* to) {
      for_registers<T>(count, [&](int64_t i, auto lanes) {
        lanes.store(sum_of_parts(sums + at + i, partials.chunks, partials.size, lanes), to + i);
      });
    };
    for (int64_t r = 0; r < rows; ++r) {
      add_up((k * rows + r) * sizes.run_padded, sizes.run, dweight + (k * rows + r) * sizes.run);
    }
    add_up(partials.bias + k, 1, dbias + k);
  });
}

namespace {

// words[place][...]: which filters have their maximum of this window there, and a gradient.
template <class T>
void set_of_filters(const T* dy, const uint16_t* argmax, int64_t filters, int64_t area,
                    uint64_t* words) {
  using V = Vec<T>;
  const int64_t word_count = ceil_div(filters, 64);
  for (int64_t i = 0; i < area * word_count; ++i) words[i] = 0;
  int64_t k = 0;
  if (area <= V::width) {
    for (; k + V::width <= filters; k += V::width) {
      const auto codes = load_codes<T>(argmax + k);
      const uint64_t kept = ~bits_of<T>(V::load(dy + k) == V::zero());
      for (int64_t place = 0; place < area; ++place) {
        const auto here = codes == static_cast<typename Integer<T>::type>(place);
        words[place * word_count + k / 64] |= (bits_of<T>(here) & kept) << k % 64;
      }
    }
  }
  for (; k < filters; ++k) {
    words[argmax[k] * word_count + k / 64] |= static_cast<uint64_t>(!(dy[k] == T(0))) << k % 64;
  }
}

// How a layer's filters lie, and by which loop.
template <class T>
struct InputRoad {
  AddWindow<T> at_once;  // all places of a window, where there is an instance
  PackedRuns<T> filters;

  InputRoad(const Conv2d& s, const MaxPool2d& p, const Sizes<T>& sizes)
      : at_once(window_instance<T>(s, p)), filters(packed_runs(s, sizes)) {
    if (!at_once) return;
    const int64_t before = round_up(s.in, Vec<T>::width);
    filters = {s.window.rows, before, before + window_vectors<T>(s) * Vec<T>::width};
  }
};

template <class T>
Own<T> own_of_input(const Conv2d& s, const MaxPool2d& p, const Sizes<T>& sizes) {
  return {sizes, p.out_width * area_of(p) * ceil_div(s.out, 64), area_of(p)};
}

}  // namespace

template <class T>
int64_t conv2d_pooled_backward_input_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  const Sizes<T> sizes(s);
  const int64_t packed = InputRoad<T>(s, p, sizes).filters.size(s);
  return (packed + workers * own_of_input(s, p, sizes).size()) * static_cast<int64_t>(sizeof(T));
}

template <class T>
void conv2d_pooled_backward_input(const T* dy, const uint16_t* argmax, const T* weight, T* dx,
                                  const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  if (s.in == 0) return;
  const Sizes<T> sizes(s);
  const Own<T> own = own_of_input(s, p, sizes);
  const int64_t area = area_of(p), rows = s.window.rows, windows = p.out_height * p.out_width;
  const InputRoad<T> road(s, p, sizes);
  const PackedRuns<T>& filters = road.filters;
  const int64_t word_count = ceil_div(s.out, 64);
  T* const packed = static_cast<T*>(workspace.data);
  T* const owned = packed + filters.size(s);
  parallel(s.out, s.out * rows * sizes.run, workspace.workers,
           [&](int64_t k, int) { filters.pack(weight, k, s, packed); });
  parallel(s.batch, sparse_cycles(s, p, sizes), workspace.workers, [&](int64_t image, int w) {
    T* const copy = owned + w * own.size();
    uint64_t* const words = own.words_in(copy);
    int64_t* const corners = own.numbers_in(copy);
    place_corners(s, p, sizes, corners);
    for (int64_t i = 0; i < sizes.image; ++i) copy[i] = T(0);
    for (int64_t band = 0; band < p.out_height; ++band) {
      const int64_t first = (image * windows + band * p.out_width) * s.out;
      for (int64_t i = 0; i < p.out_width; ++i) {
        set_of_filters(dy + first + i * s.out, argmax + first + i * s.out, s.out, area,
                       words + i * area * word_count);
      }
      if (road.at_once && all_finite(p.out_width * s.out, dy + first)) {
        for (int64_t i = 0; i < p.out_width; ++i) {
          road.at_once(
              {.pixels = copy + corner(s, sizes, band * p.window.rows, i * p.window.columns),
               .pixel_row = sizes.row,
               .filters = packed + filters.offset(s, 0),
               .filter = filters.between(s, 0),
               .filter_row = filters.step,
               .channels = s.in,
               .words = words + i * area * word_count,
               .word_count = word_count,
               .g = dy + first + i * s.out});
        }
        continue;
      }
      for (int64_t r = 0; r < rows; r += filters.group) {
        const int64_t height = smaller(filters.group, rows - r);
        const Runs<T, OfFilters<T>> runs(height, sizes.run);
        for (int64_t i = 0; i < p.out_width; ++i) {
          T* const pixels =
              copy + corner(s, sizes, band * p.window.rows, i * p.window.columns) + r * sizes.row;
          for (int64_t place = 0; place < area; ++place) {
            runs.add({.target = pixels + corners[place],
                      .target_row = sizes.row,
                      .source = packed + filters.offset(s, r),
                      .source_row = filters.step,
                      .words = words + (i * area + place) * word_count,
                      .word_count = word_count,
                      .set = {dy + first + i * s.out, filters.between(s, r)}});
          }
        }
      }
    }
    // What no window sees stays zero.
    copy_rectangle(copy, Image{sizes.rows_seen, sizes.columns_seen, s.in}, s.pad_top, s.pad_left,
                   s.height, s.width, dx + image * s.height * s.width * s.in);
  });
}

CR_INSTANTIATE(conv2d_pooled_workspace);
CR_INSTANTIATE(conv2d_pooled);
CR_INSTANTIATE(conv2d_pooled_backward_weight_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_weight);
CR_INSTANTIATE(conv2d_pooled_backward_input_workspace);
CR_INSTANTIATE(conv2d_pooled_backward_input);

}  // namespace chainrule::CR_ISA
