"""How large the shapes may be that the GPU is given, and what its kernels do not go through."""

from __future__ import annotations

import pytest

from chainrule import cuda
from test_backends import says

if cuda.why_off():
    pytest.skip(f"no GPU to use: {cuda.why_off()}", allow_module_level=True)

STRIDES = """
import numpy as np
from chainrule import Program, cuda, ops
n = 2**25
one = cuda.array(np.ones((1, 1, 1, 1), "f4"))
first = cuda.array(np.zeros((1, 1, 1, 1), "u2"))
far = {"stride": (n, 1), "out": cuda.empty((1, n, 1, 1))}
shape = far["out"].shape
for call in (
    lambda: ops.conv2d_backward_input(one, one, shape, **far),
    lambda: ops.conv2d_pooled_backward_input(one, first, one, shape, 1, **far),
):
    with Program() as program:
        call()
    for run in (None, program.run):
        if run:
            far["out"].fill(np.ones(shape, "f4"))
            run()
        dx = far["out"].numpy()
        assert dx[0, 0, 0, 0] == 1 and np.count_nonzero(dx) == 1
print("answered")
"""


def test_phases_that_meet_no_tap_are_cleared_together() -> None:
    """Of 2**25 phases one is a sum: a launch for each of the others would take all day."""
    assert says(STRIDES) == "answered"
