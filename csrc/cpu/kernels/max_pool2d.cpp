// Max-pooling, eq. (61)–(63). The lanes of a vector are channels.
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/window_max.h"

namespace chainrule::CR_ISA {
namespace {

bool stride_equals_window(const Window& w) {
  return w.rows == w.stride_rows && w.columns == w.stride_columns;
}

}  // namespace

template <class T>
void max_pool2d(const T* x, T* y, uint16_t* argmax, const MaxPool2d& s) {
  if (s.channels == 0) return;  // the batch may be 2^40 empty images
  const int64_t out_row = s.out_width * s.channels;
  const int64_t cycles = out_row * s.window.rows * s.window.columns / Vec<T>::width;
  parallel_for_ranges(
      s.batch * s.out_height, 1, 4096 / out_row, max(1, cycles), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t image = row / s.out_height, top = row % s.out_height * s.window.stride_rows;
          max_pool_row(x + (image * s.height + top) * s.width * s.channels, y + row * out_row,
                       argmax + row * out_row, s);
        }
      });
}

template <class T>
void max_pool2d_backward(const T* dy, const uint16_t* argmax, T* dx, const MaxPool2d& s) {
  if (s.channels == 0) return;
  const Window& w = s.window;
  const int64_t row_stride = s.width * s.channels;
  const int64_t image_size = s.height * row_stride;
  const int64_t window_cycles = s.channels * (w.rows * w.columns + 1);
  const int64_t windows_per_part = max(1, row_part / window_cycles);
  const int64_t part_cycles = window_cycles * min(windows_per_part, s.out_width);
  // Windows of an image may overlap, so an image is one task, and its windows are added in row
  // order.
  parallel_for(s.batch, s.batch * image_size, num_threads(), [&](int64_t image, int) {
    T* const to = dx + image * image_size;
    const bool adjacent = stride_equals_window(w);
    if (!adjacent || s.out_height * w.rows != s.height || s.out_width * w.columns != s.width) {
      fill_zero(to, image_size);
    }
    for (int64_t row = 0; row < s.out_height; ++row) {
      for (int64_t column = 0; column < s.out_width; ++column) {
        if (column % windows_per_part == 0 && !keep_going(part_cycles)) return;
        const int64_t from = ((image * s.out_height + row) * s.out_width + column) * s.channels;
        const T* const g = dy + from;
        const uint16_t* const window_argmax = argmax + from;
        T* const corner =
            to + row * w.stride_rows * row_stride + column * w.stride_columns * s.channels;
        if (adjacent) {  // every element of the window is written, zeros too, instead of a scatter
          for (int64_t r = 0; r < w.rows; ++r) {
            for (int64_t q = 0; q < w.columns; ++q) {
              const uint16_t position = static_cast<uint16_t>(r * w.columns + q);
              T* const target = corner + r * row_stride + q * s.channels;
              for (int64_t c = 0; c < s.channels; ++c)
                target[c] = window_argmax[c] == position ? g[c] : T(0);
            }
          }
        } else {
          for (int64_t c = 0; c < s.channels; ++c) {
            const int64_t position = checked_argmax(window_argmax + c, w.rows * w.columns);
            const int64_t r = position / w.columns, q = position % w.columns;
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
