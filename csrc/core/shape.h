// Shapes as plain numbers. The bindings fill them once, checked; kernels only read them.
// No functions here: an inline one would be compiled per instruction set and picked by the linker
// for everybody.
#pragma once

#include <cstdint>

namespace chainrule {

// c (m, n) = a (m, k) · b (k, n). An operand marked transposed is stored as (k, m) or (n, k).
struct Matmul {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
};

// x (batch, in) · weightᵀ + bias -> y (batch, out); weight is (out, in).
struct Linear {
  int64_t batch, in, out;
};

// A window slides over rows and columns of (batch, height, width, channels) images.
struct Window {
  int64_t rows, columns;                // r, s
  int64_t stride_rows, stride_columns;  // t
};

// x (batch, height, width, in), weight (out, rows, columns, in), y (batch, out_height, out_width,
// out). Padding at the bottom and the right follows from the output's size.
struct Conv2d {
  int64_t batch, height, width, in, out;
  Window window;
  int64_t pad_top, pad_left;
  int64_t out_height, out_width;
};

// x (batch, height, width, channels), y and argmax (batch, out_height, out_width, channels).
struct MaxPool2d {
  int64_t batch, height, width, channels;
  Window window;
  int64_t out_height, out_width;
};

// A matrix of independent rows: softmax and the losses work on each by itself.
struct Rows {
  int64_t rows, columns;
};

// y (rows, columns) from a source of (source_rows, columns).
struct Gather {
  int64_t rows, columns, source_rows;
};

// A number that changes between replays may stand in the GPU's memory: where its `_at` is not null,
// the kernel reads it there. The CPU's kernels are only handed numbers.
struct Dropout {
  int64_t size;
  uint64_t seed, offset;
  uint32_t threshold;  // an element is kept when its random word is at least this
  double scale;        // 1 / (1 - rate)
  const uint64_t* device_offset = nullptr;
};

struct Sgd {
  int64_t size;
  double learning_rate, momentum, l2;
  bool nesterov;
  // Where it holds a number that is not finite, the step leaves everything as it was.
  const double* device_learning_rate = nullptr;
};

// Memory that the caller lends to one kernel call, and how many threads may share it.
struct Workspace {
  void* data;
  int workers;
};

}  // namespace chainrule
