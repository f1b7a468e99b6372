// Max-pooling, eq. (61)–(63). The lanes of a vector are channels.
#include "cpu/kernels/kernel.h"
#include "cpu/kernels/long_sums.h"
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

namespace {

// Windows so large that a pixel may belong to many. A pixel's gradients are added over the windows
// that contain it, in row order, in parts. There are at most 64 parts, because a position
// is a uint16.
template <class T>
void add_large_windows(const T* dy, const uint16_t* argmax, T* dx, const MaxPool2d& s) {
  const Window& w = s.window;
  constexpr int64_t block = 16, part_windows = max_part_terms;
  for (int64_t at = 0; at < s.height * s.width; ++at) {
    const int64_t row = at / s.width, column = at % s.width;
    const int64_t top = max(0, ceil_div(row - w.rows + 1, w.stride_rows));
    const int64_t left = max(0, ceil_div(column - w.columns + 1, w.stride_columns));
    const int64_t bottom = min(s.out_height - 1, row / w.stride_rows);
    const int64_t right = min(s.out_width - 1, column / w.stride_columns);
    if (!keep_going((bottom - top + 1) * (right - left + 1) * s.channels)) return;
    for (int64_t c = 0; c < s.channels; c += block) {
      const int64_t lanes = min(block, s.channels - c);
      T total[block] = {}, part[block] = {};
      int64_t windows = 0;
      for (int64_t i = top; i <= bottom; ++i) {
        for (int64_t j = left; j <= right; ++j) {
          const int64_t position =
              (row - i * w.stride_rows) * w.columns + column - j * w.stride_columns;
          const int64_t from = (i * s.out_width + j) * s.channels + c;
          for (int64_t l = 0; l < lanes; ++l) {
            part[l] += argmax[from + l] == position ? dy[from + l] : T(0);
          }
          if (++windows % part_windows != 0) continue;
          for (int64_t l = 0; l < lanes; ++l) {
            total[l] += part[l];
            part[l] = T(0);
          }
        }
      }
      for (int64_t l = 0; l < lanes; ++l) dx[at * s.channels + c + l] = total[l] + part[l];
    }
  }
}

}  // namespace

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
    if (!adjacent && w.rows * w.columns > max_part_terms) {
      const int64_t first = image * s.out_height * s.out_width * s.channels;
      return add_large_windows(dy + first, argmax + first, to, s);
    }
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
