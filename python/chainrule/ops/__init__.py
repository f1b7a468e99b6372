"""All operations: arrays in, arrays out, computed by the compiled kernels.

Arrays of one call are either all float32 or all float64, and all in the memory of one device: NumPy
arrays on the CPU, `chainrule.cuda.Array` on a GPU. Images are ``(N, H, W, C)``: instances, rows,
columns, channels. The numbers in parentheses are equations of *Machine Learning is Calculus Plus
Linear Algebra*.

Each function returns new arrays, or fills ``out`` and returns it:

- A NumPy input that is not C-contiguous or not aligned gives the same result, through one copy.
- An object with ``__dlpack__`` or ``__cuda_array_interface__`` is read without a copy.
- A masked array is an error, because its mask would be lost.
- ``out`` is an array, or a tuple of arrays if the function returns several. It must have the dtype
  and shape of the result, be C-contiguous and be writeable.
- Elementwise functions and the softmax family accept ``out`` equal to an input, as their docstrings
  say. Any other overlap of ``out`` with an input is an error.
- Arrays without elements and batches of 0 or 1 instances are accepted.

Raises
------
TypeError
    If an argument is not a float32 or float64 array, or if dtypes or devices differ.
ValueError
    If a shape or a parameter violates its rule, or if ``out`` cannot be written to.
MemoryError
    If a result or the workspace cannot be allocated. Nothing has been computed then.
RuntimeError
    If CUDA fails.
KeyboardInterrupt
    Within about 250 ms of Ctrl-C, on the CPU, however long the call would take. The contents of
    ``out``, and of the arrays that `sgd` and `adam` update, are then undefined. A signal handler
    that returns does not disturb the call.

Notes
-----
The result does not depend on the number of threads.

Another thread must not change the arguments during a call. If it changes labels, indices or argmax
after their check, the result is undefined, but no memory outside the arguments is read or written.

Sums are computed in parts. The error of a sum of n terms, of any length, is at most
(4096 + log₂ n) · eps · Σ|terms|, where eps is ``numpy.finfo(dtype).eps``.

The error of an output of a float32 convolution on finite numbers is at most ``n · 2^-24 · Σ|x||w| +
2^-16 · X · √(Σw²)``: n products and their sum, the output's filter, and X the largest |x| of the
6 x 6 pixels around it, which is at most 96 times the level of its image, or counts as 0. Only the
second term remains for a window of zeros. `set_convolution_precision` can remove it.
``csrc/cpu/README.md`` defines the level and states the bound of the weight gradient.

NaN and infinities propagate by these rules:

=========================================  ===================================================
operation                                  result
=========================================  ===================================================
`matmul`, `linear`, `linear_backward`      as IEEE arithmetic of the dense product: 0·inf = NaN
`conv2d` and its backward passes           the same with every algorithm; NaN reaches only the
                                           outputs whose window contains it
`conv2d_pooled_backward_input`,            products with an exact zero are skipped: 0·inf adds 0
`conv2d_pooled_backward_weight`
`relu`, `leaky_relu`                       NaN for NaN; `relu` gives +0 for -0
`relu_backward`                            dy where y is NaN, 0 where y is 0
`leaky_relu_backward`                      slope·dy where x is NaN or 0
`sigmoid`, `tanh`, `gelu`                  the limit for an infinite x; NaN for NaN
`gelu_backward`                            0·dy where x is -inf, dy where x is inf
`sigmoid_backward`, `tanh_backward`        as IEEE arithmetic
`softmax`, `log_softmax`,                  exact for any finite row; a logit of -inf has
`softmax_cross_entropy`                    probability 0; a row that contains NaN or +inf, or
                                           only -inf, becomes NaN
`max_pool2d`                               NaN counts as the maximum; of equal maxima, or of
                                           several NaN, the first in row order is the argmax
`dropout`, `dropout_backward`              a dropped element is 0, even if it was NaN
`squared_error`, `huber`, `gather`         as IEEE arithmetic
`binary_cross_entropy`                     exact for any finite logit; NaN for NaN; an infinite
                                           logit gives the loss inf, or NaN if its target agrees
`sgd`, `adam`                              as IEEE arithmetic; a learning rate that is not
                                           finite raises ValueError, or changes nothing if a
                                           kernel reads it from GPU memory; in `adam` a finite
                                           gradient whose square overflows makes the second
                                           moment infinite, and the step 0
=========================================  ===================================================
"""

from __future__ import annotations

from ._activations import (
    dropout,
    dropout_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    relu,
    relu_backward,
    softmax,
    softmax_backward,
)
from ._convolution import (
    conv2d,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_pooled,
    conv2d_pooled_backward_input,
    conv2d_pooled_backward_weight,
)
from ._convolution import (
    conv2d_output_shape as conv2d_output_shape,
)
from ._losses import (
    binary_cross_entropy,
    huber,
    softmax_cross_entropy,
    squared_error,
)
from ._pooling import (
    max_pool2d,
    max_pool2d_backward,
)
from ._pooling import (
    max_pool2d_output_shape as max_pool2d_output_shape,
)
from ._products import (
    linear,
    linear_backward,
    matmul,
)
from ._smooth_activations import (
    gelu,
    gelu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from ._training import (
    adam,
    gather,
    sgd,
)
from ._training import count_correct as count_correct

__all__ = [
    "adam",
    "binary_cross_entropy",
    "conv2d",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_pooled",
    "conv2d_pooled_backward_input",
    "conv2d_pooled_backward_weight",
    "dropout",
    "dropout_backward",
    "gather",
    "gelu",
    "gelu_backward",
    "huber",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "max_pool2d_backward",
    "relu",
    "relu_backward",
    "sgd",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "squared_error",
    "tanh",
    "tanh_backward",
]
