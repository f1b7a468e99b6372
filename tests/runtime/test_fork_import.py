"""A fork while another thread imports a module on first use: the child imports it too."""

from __future__ import annotations

import os
import textwrap

import pytest

from chainrule._files import expanded
from chainrule._optional import importing
from run_subprocess import python_output

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# The finder makes the import slow, as it is on a busy machine. The child runs the same action.
PROGRAM = textwrap.dedent(
    """
    import importlib.abc, os, pathlib, signal, sys, tempfile, threading, time
    import numpy as np
    import chainrule as cr

    module, started = {module!r}, threading.Event()
    assert module not in sys.modules, "imported with the package: the test has no effect"

    class Slow(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == module:
                started.set()
                time.sleep(0.3)

    def action():
        {action}

    network = cr.Sequential(cr.Linear(3), input_shape=(4,))
    path = pathlib.Path(tempfile.mkdtemp(), "net.safetensors")
    sys.meta_path.insert(0, Slow())
    thread = threading.Thread(target=action)
    thread.start()
    assert started.wait(30)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        action()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    thread.join()
    print("the child", "hangs" if status else "answers")
    """
)


@pytest.mark.parametrize(
    ("module", "action"),
    [
        ("numpy.random", "network.vector"),
        ("numpy.random", "network.predict(np.zeros((1, 4), np.float32))"),
        ("chainrule.nn.serialization", "network.save(path)"),
        ("csv", "cr.History().to_csv(path.with_suffix('.csv'))"),
        ("html", "network.summary()._repr_html_()"),
        ("chainrule.calculus", "cr.calculus"),
        ("colorsys", "cr.calculus.equations.resolve('colorsys')"),
        ("chainrule.data", "cr.data"),
        ("chainrule.plots", "cr.plots"),
    ],
)
def test_the_child_does_not_inherit_a_locked_import(module: str, action: str) -> None:
    assert python_output(PROGRAM.format(module=module, action=action)) == "the child answers"


def test_a_users_home_is_looked_up_while_no_other_thread_forks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """os.path.expanduser imports pwd."""
    found, expanduser = [], os.path.expanduser

    def recorded(path: str) -> str:
        found.append(importing._is_owned())  # type: ignore[attr-defined]
        return expanduser(path)

    monkeypatch.setattr(os.path, "expanduser", recorded)
    assert expanded("load", "~root/net") == expanduser("~root/net")
    assert found == [True]


def test_a_fork_during_an_import_in_the_same_thread_does_not_hang() -> None:
    program = """
import os, signal
from chainrule._optional import importing
signal.alarm(30)
with importing:
    child = os.fork()
if child == 0:
    with importing:
        os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    assert python_output(program) == "0"


def test_children_forked_at_random_moments_of_a_training_answer() -> None:
    program = """
import os, random, signal, threading, time
import numpy as np
import chainrule as cr

rng = np.random.default_rng(0)
x, y = rng.random((256, 8)).astype(np.float32), rng.integers(0, 3, 256)
layers = cr.Linear(16), cr.ReLU(), cr.Dropout(0.1), cr.Linear(3)
network = cr.Sequential(*layers, input_shape=(8,))
stop = threading.Event()

def work():
    while not stop.is_set():
        cr.fit(network, (x, y), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.01, momentum=0.9),
               epochs=2, batch_size=16, validation=0.2, progress=False)
        fresh = cr.Sequential(*layers, input_shape=(8,))
        fresh.loss_and_gradient(x, y, cr.CrossEntropy())

thread = threading.Thread(target=work)
thread.start()
moments, failed = random.Random(1), 0
for _ in range(40):
    time.sleep(moments.random() * 0.004)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        network.predict(x)
        network.loss_and_gradient(x, y, cr.CrossEntropy())
        cr.Sequential(*layers, input_shape=(8,)).predict(x)
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
thread.join()
print(failed)
"""
    assert python_output(program) == "0"
