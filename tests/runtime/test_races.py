"""Threads that change an array during a call: the result is undefined, but inside the buffers."""

from __future__ import annotations

import json

import pytest

from run_subprocess import run_child

KINDS = [
    "softmax_cross_entropy",
    "gather",
    "max_pool2d_backward",
    "max_pool2d_backward, adjacent",
    "conv2d_pooled_backward_input",
    "conv2d_pooled_backward_weight",
]


@pytest.mark.parametrize("kind", KINDS)
def test_integers_that_become_invalid_after_their_check(kind: str, backend: str) -> None:
    """A read or write outside a buffer ends the child."""
    outcomes = json.loads(run_child("race", kind, "2", CHAINRULE_BACKEND=backend))
    assert outcomes["valid"] > 0, outcomes
    assert outcomes["invalid"] > 0, outcomes
