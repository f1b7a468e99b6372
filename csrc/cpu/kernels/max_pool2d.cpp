// eq. (61)–(63), vectors over channels. The first maximum in row order wins; the first NaN counts
// as a maximum that nothing exceeds.
#include "cpu/kernels/kernel.h"

namespace chainrule::CR_ISA {
namespace {

// One output pixel, `lanes` of its channels: partial only at the end of the channels.
template <class T, bool partial>
CR_INLINE void pool_pixel(const T* corner, T* y, uint16_t* argmax, int64_t row_stride,
                          int64_t lanes, const MaxPool2d& s) {
  using V = Vec<T>;
  const auto load = [&](const T* p) { return partial ? V::load(p, lanes, T(0)) : V::load(p); };
  V best = load(corner);
  V position = V::zero();
  T code = 0;
  for (int64_t r = 0; r < s.window.rows; ++r) {
    for (int64_t c = 0; c < s.window.columns; ++c, code += 1) {
      const V v = load(corner + r * row_stride + c * s.channels);
      // v > best, or v is NaN and best is not.
      const auto keep = v <= best;
      const auto settled = best == best;
      const V candidate = select<T>(keep, best, v);
      const V place = select<T>(keep, position, V::set(code));
      best = select<T>(settled, candidate, best);
      position = select<T>(settled, place, position);
    }
  }
  T places[V::width];
  position.store(places);
  if constexpr (partial) {
    best.store(y, lanes);
    for (int64_t i = 0; i < lanes; ++i) argmax[i] = static_cast<uint16_t>(places[i]);
  } else {
    best.store(y);
    for (int i = 0; i < V::width; ++i) argmax[i] = static_cast<uint16_t>(places[i]);
  }
}

bool tiles_exactly(const Window& w) {
  return w.rows == w.stride_rows && w.columns == w.stride_columns;
}

}  // namespace

template <class T>
void max_pool2d(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  using V = Vec<T>;
  const int64_t row_stride = s.width * s.channels;
  const int64_t out_row = s.out_width * s.channels;
  const int64_t cycles = out_row * s.window.rows * s.window.columns / V::width;
  parallel_ranges(s.batch * s.out_height, larger(1, 4096 / larger(1, out_row)), larger(1, cycles),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t row = begin; row < end; ++row) {
                      const int64_t image = row / s.out_height,
                                    top = row % s.out_height * s.window.stride_rows;
                      for (int64_t column = 0; column < s.out_width; ++column) {
                        const T* const corner = x + (image * s.height + top) * row_stride +
                                                column * s.window.stride_columns * s.channels;
                        const int64_t to = row * out_row + column * s.channels;
                        int64_t c = 0;
                        for (; c + V::width <= s.channels; c += V::width) {
                          pool_pixel<T, false>(corner + c, y + to + c, argmax + to + c, row_stride,
                                               V::width, s);
                        }
                        if (c < s.channels) {
                          pool_pixel<T, true>(corner + c, y + to + c, argmax + to + c, row_stride,
                                              s.channels - c, s);
                        }
                      }
                    }
                  });
}

template <class T>
void max_pool2d_backward(const T* dy, const uint16_t* argmax, T* dx, const MaxPool2d& s) {
  const Window& w = s.window;
  const int64_t row_stride = s.width * s.channels;
  const int64_t image_size = s.height * row_stride;
  // Windows of one image may overlap, so an image is one task, and its windows come in row order.
  parallel(s.batch, s.batch * image_size, num_threads(), [&](int64_t image, int) {
    T* const to = dx + image * image_size;
    const bool exact = tiles_exactly(w);
    if (!exact || s.out_height * w.rows != s.height || s.out_width * w.columns != s.width) {
      for (int64_t i = 0; i < image_size; ++i) to[i] = T(0);
    }
    for (int64_t row = 0; row < s.out_height; ++row) {
      for (int64_t column = 0; column < s.out_width; ++column) {
        const int64_t from = ((image * s.out_height + row) * s.out_width + column) * s.channels;
        const T* const g = dy + from;
        const uint16_t* const codes = argmax + from;
        T* const corner =
            to + row * w.stride_rows * row_stride + column * w.stride_columns * s.channels;
        if (exact) {  // every element of the window is written, zeros too: no scatter
          for (int64_t r = 0; r < w.rows; ++r) {
            for (int64_t q = 0; q < w.columns; ++q) {
              const uint16_t code = static_cast<uint16_t>(r * w.columns + q);
              T* const target = corner + r * row_stride + q * s.channels;
              for (int64_t c = 0; c < s.channels; ++c) target[c] = codes[c] == code ? g[c] : T(0);
            }
          }
        } else {
          for (int64_t c = 0; c < s.channels; ++c) {
            const int64_t r = codes[c] / w.columns, q = codes[c] % w.columns;
            corner[r * row_stride + q * s.channels + c] += g[c];
          }
        }
      }
    }
  });
}

CR_INSTANTIATE(max_pool2d);
CR_INSTANTIATE(max_pool2d_backward);

}  // namespace chainrule::CR_ISA
