// The shape of each operation as plain numbers. The bindings check and fill them. Kernels read
// them. This file must not define functions. An inline function would be compiled for each
// instruction set, and the linker would keep one copy for all.
#pragma once

#include <cstdint>

namespace chainrule {

// c (m, n) = a (m, k) · b (k, n). A transposed operand is stored as (k, m) or (n, k).
struct Matmul {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
};

// y (batch, out) = x (batch, in) · weightᵀ + bias. weight is (out, in).
struct Linear {
  int64_t batch, in, out;
};

// A window slides over rows and columns of (batch, height, width, channels) images.
struct Window {
  int64_t rows, columns;                // r, s
  int64_t stride_rows, stride_columns;  // t
};

// x (batch, height, width, in), weight (out, rows, columns, in), y (batch, out_height, out_width,
// out). Padding at the bottom and at the right follows from the size of the output.
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

// A matrix of independent rows, for softmax and the losses.
struct Rows {
  int64_t rows, columns;
};

// y (rows, columns), source (source_rows, columns).
struct Gather {
  int64_t rows, columns, source_rows;
};

// A scalar that changes between replays may be stored in GPU memory. If its device pointer is not
// null, the CUDA kernel reads the scalar there. CPU kernels ignore device pointers.
struct Dropout {
  int64_t size;
  uint64_t seed, offset;
  uint32_t threshold;  // an element is kept if its random word is at least this
  double scale;        // 1 / (1 - rate)
  const uint64_t* device_offset = nullptr;
};

struct Sgd {
  int64_t size;
  double learning_rate, momentum, l2;
  bool nesterov;
  // If the value is not finite, the step changes nothing.
  const double* device_learning_rate = nullptr;
};

struct Adam {
  int64_t size;
  uint64_t step;  // from 1
  double learning_rate, beta1, beta2, eps, l2, weight_decay;
  // If the learning rate is not finite, or if the step is 0, the call changes nothing.
  const uint64_t* device_step = nullptr;
  const double* device_learning_rate = nullptr;
};

// Memory of the caller for one kernel call, and the number of threads that may share it.
struct Workspace {
  void* data;
  int workers;
};

}  // namespace chainrule
