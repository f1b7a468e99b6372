"""The import in a sub-interpreter, as mod_wsgi makes one per application."""

from __future__ import annotations

from run_subprocess import run_python

CODE = """
try:
    import _interpreters as interpreters  # from Python 3.13 on
except ImportError:
    import _xxsubinterpreters as interpreters
import sys
code = "try: import chainrule\\nexcept ImportError as e: print('refused:', e, flush=True)"
# An interpreter that shares the GIL. Python itself refuses the import in others.
legacy = ("legacy",) if sys.version_info >= (3, 13) else ()
isolated = {} if legacy or sys.version_info < (3, 12) else {"isolated": False}
one = interpreters.create(*legacy, **isolated)
(interpreters.exec if legacy else interpreters.run_string)(one, code)
import chainrule
print(len(chainrule.backends()) > 0)
"""


def test_the_import_is_refused_and_does_not_hang() -> None:
    done = run_python(CODE)
    assert done.returncode == 0, done.stderr
    refused, usable = done.stdout.splitlines()
    assert refused.startswith("refused: ")
    assert "chainrule: must be imported in the main interpreter, got a sub-interpreter" in refused
    assert usable == "True"
