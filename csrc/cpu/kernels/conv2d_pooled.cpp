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
// Both are one loop. A filter's row, and the pixels under it, are runs of columns * channels
// contiguous numbers, and with g the gradient of filter k at the pixel where a maximum stood
//   weight    run (k, r) of dweight += g · the pixels' run          over the windows of a band
//   input     the pixels' run       += g · run (k, r) of the weight over the filters with one place
// so a target run is held in registers while a list of (where the source begins, g) passes by.
// r is the outermost loop: what the lists point at then fits the first-level cache.
#include "cpu/kernels/convolution.h"
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {
namespace {

template <class T>
struct Entry {
  int64_t offset;
  T value;
};

constexpr int most_vectors = 8;

// target[0 .. vectors) += Σ value · source[offset ...]; of the last register only `lanes` are
// stored.
template <int vectors, class T>
void add_runs(T* target, const T* source, const Entry<T>* list, int64_t count, int64_t lanes) {
  using V = Vec<T>;
  V total[vectors];
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) total[j] = V::load(target + j * V::width);
  for (int64_t i = 0; i < count; ++i) {
    const V value = V::set(list[i].value);
    const T* const from = source + list[i].offset;
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) total[j] = fma(value, V::load(from + j * V::width), total[j]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < vectors - 1; ++j) total[j].store(target + j * V::width);
  if (lanes == V::width) {
    total[vectors - 1].store(target + (vectors - 1) * V::width);
  } else {
    total[vectors - 1].store(target + (vectors - 1) * V::width, lanes);
  }
}

// The same for a run of any length. What lies behind it, up to whole registers, is read but not
// written.
template <class T>
void add_runs(T* target, const T* source, const Entry<T>* list, int64_t count, int64_t length) {
  if (count == 0) return;
  constexpr int width = Vec<T>::width;
  constexpr int64_t most = most_vectors * width;
  for (; length > 0; length -= most, target += most, source += most) {
    const int64_t now = smaller(most, length);
    const int64_t lanes = now - (ceil_div(now, width) - 1) * width;
    switch (ceil_div(now, width)) {
      case 1:
        add_runs<1>(target, source, list, count, lanes);
        break;
      case 2:
        add_runs<2>(target, source, list, count, lanes);
        break;
      case 3:
        add_runs<3>(target, source, list, count, lanes);
        break;
      case 4:
        add_runs<4>(target, source, list, count, lanes);
        break;
      case 5:
        add_runs<5>(target, source, list, count, lanes);
        break;
      case 6:
        add_runs<6>(target, source, list, count, lanes);
        break;
      case 7:
        add_runs<7>(target, source, list, count, lanes);
        break;
      default:
        add_runs<8>(target, source, list, count, lanes);
    }
  }
}

// Sizes that both passes share.
template <class T>
struct Sizes {
  int64_t run, run_padded;          // a filter's row, and with whole registers
  int64_t rows_seen, columns_seen;  // pixels under any window, the border included
  int64_t row;                      // elements in a row of them
  int64_t image;                    // elements of the copy, with what may be read behind it

  explicit Sizes(const Conv2d& s) {
    run = s.window.columns * s.in;
    run_padded = round_up(run, Vec<T>::width);
    rows_seen = (s.out_height - 1) * s.window.stride_rows + s.window.rows;
    columns_seen = (s.out_width - 1) * s.window.stride_columns + s.window.columns;
    row = columns_seen * s.in;
    image = round_up(rows_seen * row + run_padded, 16);
  }
};

// Where the pixels under a filter at position (row, column) of the convolution's output begin.
template <class T>
int64_t corner(const Conv2d& s, const Sizes<T>& sizes, int64_t row, int64_t column) {
  return row * s.window.stride_rows * sizes.row + column * s.window.stride_columns * s.in;
}

// The same for every place in a pooling window, from the window's own corner.
template <class T>
void place_corners(const Conv2d& s, const MaxPool2d& p, const Sizes<T>& sizes, int64_t* corners) {
  for (int64_t place = 0; place < p.window.rows * p.window.columns; ++place) {
    corners[place] = corner(s, sizes, place / p.window.columns, place % p.window.columns);
  }
}

// One entry of a list, or none, without a branch that nobody could predict.
template <class T>
CR_INLINE int64_t append(Entry<T>* list, int64_t count, int64_t offset, T value) {
  list[count] = {offset, value};
  return count + (value != T(0));
}

// What one task needs for itself, in units of T: the image with its border laid out, the lists of a
// band of windows, their lengths, and the places' corners.
template <class T>
struct Own {
  int64_t image, lists, counts, corners;

  Own(const Sizes<T>& sizes, int64_t most_entries, int64_t lengths, int64_t area) {
    image = sizes.image;
    lists = units(most_entries, sizeof(Entry<T>));
    counts = units(lengths, sizeof(int64_t));
    corners = units(area, sizeof(int64_t));
  }
  int64_t size() const { return image + lists + counts + corners; }
  static int64_t units(int64_t count, std::size_t bytes) {
    return round_up(ceil_div(count * static_cast<int64_t>(bytes), sizeof(T)), 16);
  }

  Entry<T>* lists_in(T* own) const { return reinterpret_cast<Entry<T>*>(own + image); }
  int64_t* counts_in(T* own) const { return reinterpret_cast<int64_t*>(own + image + lists); }
  int64_t* corners_in(T* own) const {
    return reinterpret_cast<int64_t*>(own + image + lists + counts);
  }
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
void conv2d_pooled(const T* x, const T* weight, const T* bias, T* y, uint16_t* argmax, bool rectify,
                   const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  Convolution<T, Pools<T>> convolution = pooled_convolution(s, p, y, argmax);
  convolution.direct.bias = bias;
  convolution.direct.rectify = rectify;
  convolution.pack_filters(weight, workspace);
  convolution.run(x, workspace);
}

template <class T>
int64_t conv2d_pooled_backward_weight_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  const Sizes<T> sizes(s);
  const Partials<T> partials(s, sizes);
  const Own<T> own(sizes, s.out * p.out_width, s.out, area_of(p));
  return (partials.chunks * partials.size + workers * own.size()) * static_cast<int64_t>(sizeof(T));
}

template <class T>
void conv2d_pooled_backward_weight(const T* dy, const uint16_t* argmax, const T* x, T* dweight,
                                   T* dbias, const Conv2d& s, const MaxPool2d& p,
                                   const Workspace& workspace) {
  const Sizes<T> sizes(s);
  const Partials<T> partials(s, sizes);
  const Own<T> own(sizes, s.out * p.out_width, s.out, area_of(p));
  const int64_t rows = s.window.rows, windows = p.out_height * p.out_width;
  T* const sums = static_cast<T*>(workspace.data);
  T* const owned = sums + partials.chunks * partials.size;
  parallel(partials.chunks, sparse_cycles(s, p, sizes), workspace.workers,
           [&](int64_t chunk, int w) {
             T* const partial = sums + chunk * partials.size;
             T* const copy = owned + w * own.size();
             Entry<T>* const lists = own.lists_in(copy);
             int64_t* const counts = own.counts_in(copy);
             int64_t* const corners = own.corners_in(copy);
             place_corners(s, p, sizes, corners);
             for (int64_t i = 0; i < partials.size; ++i) partial[i] = T(0);
             for (int64_t i = sizes.rows_seen * sizes.row; i < sizes.image; ++i) copy[i] = T(0);
             const int64_t end = (chunk + 1) * s.batch / partials.chunks;
             for (int64_t image = chunk * s.batch / partials.chunks; image < end; ++image) {
               copy_rectangle(x + image * s.height * s.width * s.in, Image{s.height, s.width, s.in},
                              -s.pad_top, -s.pad_left, sizes.rows_seen, sizes.columns_seen, copy);
               for (int64_t band = 0; band < p.out_height; ++band) {
                 const int64_t first = (image * windows + band * p.out_width) * s.out;
                 const int64_t top = corner(s, sizes, band * p.window.rows, 0);
                 const int64_t step = corner(s, sizes, 0, p.window.columns);
                 for (int64_t k = 0; k < s.out; ++k) {
                   int64_t count = 0;
                   T sum = T(0);
                   for (int64_t i = 0; i < p.out_width; ++i) {
                     const T g = dy[first + i * s.out + k];
                     const int64_t offset = top + i * step + corners[argmax[first + i * s.out + k]];
                     count = append(lists + k * p.out_width, count, offset, g);
                     sum += g;
                   }
                   counts[k] = count;
                   partial[partials.bias + k] += sum;
                 }
                 for (int64_t r = 0; r < rows; ++r) {
                   for (int64_t k = 0; k < s.out; ++k) {
                     add_runs(partial + (k * rows + r) * sizes.run_padded, copy + r * sizes.row,
                              lists + k * p.out_width, counts[k], sizes.run);
                   }
                 }
               }
             }
           });
  parallel(s.out, partials.chunks * partials.size, workspace.workers, [&](int64_t k, int) {
    const auto total = [&](int64_t at) {  // the chunks in order
      T sum = T(0);
      for (int64_t chunk = 0; chunk < partials.chunks; ++chunk) {
        sum += sums[chunk * partials.size + at];
      }
      return sum;
    };
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < sizes.run; ++i) {
        dweight[(k * rows + r) * sizes.run + i] = total((k * rows + r) * sizes.run_padded + i);
      }
    }
    dbias[k] = total(partials.bias + k);
  });
}

template <class T>
int64_t conv2d_pooled_backward_input_workspace(const Conv2d& s, const MaxPool2d& p, int workers) {
  const Sizes<T> sizes(s);
  const int64_t lists = p.out_width * area_of(p);
  const Own<T> own(sizes, lists * s.out, lists, area_of(p));
  const int64_t packed = round_up(s.window.rows * s.out * sizes.run_padded, 16);
  return (packed + workers * own.size()) * static_cast<int64_t>(sizeof(T));
}

template <class T>
void conv2d_pooled_backward_input(const T* dy, const uint16_t* argmax, const T* weight, T* dx,
                                  const Conv2d& s, const MaxPool2d& p, const Workspace& workspace) {
  const Sizes<T> sizes(s);
  const int64_t area = area_of(p), rows = s.window.rows, windows = p.out_height * p.out_width;
  const Own<T> own(sizes, p.out_width * area * s.out, p.out_width * area, area);
  T* const packed = static_cast<T*>(workspace.data);  // (rows, filters, run)
  T* const owned = packed + round_up(rows * s.out * sizes.run_padded, 16);
  parallel(s.out, s.out * rows * sizes.run, workspace.workers, [&](int64_t k, int) {
    for (int64_t r = 0; r < rows; ++r) {
      T* const to = packed + (r * s.out + k) * sizes.run_padded;
      const T* const from = weight + (k * rows + r) * sizes.run;
      for (int64_t i = 0; i < sizes.run_padded; ++i) to[i] = i < sizes.run ? from[i] : T(0);
    }
  });
  parallel(s.batch, sparse_cycles(s, p, sizes), workspace.workers, [&](int64_t image, int w) {
    T* const copy = owned + w * own.size();
    Entry<T>* const lists = own.lists_in(copy);
    int64_t* const counts = own.counts_in(copy);
    int64_t* const corners = own.corners_in(copy);
    place_corners(s, p, sizes, corners);
    for (int64_t i = 0; i < sizes.image; ++i) copy[i] = T(0);
    for (int64_t band = 0; band < p.out_height; ++band) {
      for (int64_t i = 0; i < p.out_width * area; ++i) counts[i] = 0;
      for (int64_t i = 0; i < p.out_width; ++i) {
        const int64_t at = (image * windows + band * p.out_width + i) * s.out;
        for (int64_t k = 0; k < s.out; ++k) {
          const int64_t list = i * area + argmax[at + k];
          counts[list] =
              append(lists + list * s.out, counts[list], k * sizes.run_padded, dy[at + k]);
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < p.out_width; ++i) {
          T* const pixels =
              copy + corner(s, sizes, band * p.window.rows, i * p.window.columns) + r * sizes.row;
          for (int64_t place = 0; place < area; ++place) {
            add_runs(pixels + corners[place], packed + r * s.out * sizes.run_padded,
                     lists + (i * area + place) * s.out, counts[i * area + place], sizes.run);
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
