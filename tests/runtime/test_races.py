"""Arrays that are written during a call: the result is undefined, but inside the buffers.

Labels, indices and argmax are addresses. They are checked, and read again by the kernel.
"""

from __future__ import annotations

import pytest

from run_subprocess import run_child

# The workspace ends at an inaccessible page, and the output of the first test, too. An access
# outside ends the child.
FENCED = {"CHAINRULE_FENCE": "1"}


@pytest.mark.parametrize(
    "op",
    ["softmax_cross_entropy", "gather", "max_pool2d_backward", "conv2d_pooled_backward_input"],
)
def test_integers_that_the_call_overwrites(op: str, backend: str) -> None:
    run_child("written_during_the_call", op, CHAINRULE_BACKEND=backend, **FENCED)


def test_integers_that_another_thread_changes(backend: str) -> None:
    """`conv2d_pooled_backward_weight` writes its results after it has read its arguments."""
    run_child("race", "2", CHAINRULE_BACKEND=backend, **FENCED)
