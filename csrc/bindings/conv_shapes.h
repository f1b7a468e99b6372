// Shapes of operations that slide a window over images.
#pragma once

#include "bindings/call.h"

namespace chainrule::bindings {

struct Filters {
  int64_t out, rows, columns, in;
};

// Sizes of a weight array (out, rows, columns, in).
Filters filters_of(const ArrayView& weight);

// The shapes of a convolution of images `x` (batch, height, width, channels) with these filters.
Conv2d conv2d_shape(const Call& call, const Shape& x, const Filters& filters,
                    const py::object& stride, const py::object& padding);
// The same, if every count that a kernel of the call's device computes is in range.
Conv2d checked_conv2d_shape(const Call& call, const Shape& x, const Filters& filters,
                            const py::object& stride, const py::object& padding);
Shape output_shape(const Conv2d& s);

// The shapes of max-pooling over images of shape `x`. If stride is None, it is the window's size.
MaxPool2d max_pool2d_shape(const Call& call, const Shape& x, const py::object& window,
                           const py::object& stride);
Shape output_shape(const MaxPool2d& s);

// A shape of four axes as Python's tuple.
using ImageShape = py::typing::Tuple<py::int_, py::int_, py::int_, py::int_>;
ImageShape python_shape(const Shape& shape);

// ValueError unless every argmax is inside its window, because kernels write to that position.
// It is part of the operation, so a program checks again at every replay.
void require_argmax_in_window(const char* op, const ArrayView& argmax, const MaxPool2d& s);

// ValueError unless `array` has the shape that `what` must have.
void require_shape(const Call& call, const char* what, const ArrayView& array, const Shape& shape);

}  // namespace chainrule::bindings
