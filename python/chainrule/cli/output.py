"""Standard output and standard error of a command, whose errors do not end the command.

A training of an hour must not end because the reader of its report is gone (``| head``), the disk
of its log is full, or a stream is closed (``2>&-``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


class GuardedStream:
    """A text stream that drops its text after the first error.

    Parameters
    ----------
    stream : text stream, or None
        None if the process has no such stream.

    Attributes
    ----------
    error : Exception, or None
        The first error of the stream.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.error: Exception | None = None
        with suppress(Exception):
            # Print "?" for a character that the terminal's encoding lacks.
            cast("Any", stream).reconfigure(errors="replace")

    @property
    def encoding(self) -> str | None:
        """The encoding of the stream, or None if it has none."""
        return getattr(self._stream, "encoding", None)

    @property
    def errors(self) -> str | None:
        """The treatment of characters that the encoding lacks."""
        return getattr(self._stream, "errors", None)

    def write(self, text: str) -> int:
        """Write text, unless an error came before. Return its length."""
        if not isinstance(text, str):  # click finds out in this way that this is no binary stream
            raise TypeError(f"write: text must be a str, got {type(text).__name__}")
        if self._stream is not None and self.error is None:
            try:
                self._stream.write(text)
            except Exception as error:
                self.error = error
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless an error came before."""
        if self._stream is not None and self.error is None:
            try:
                self._stream.flush()
            except Exception as error:
                self.error = error

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        with suppress(Exception):
            return self._stream is not None and bool(self._stream.isatty())
        return False

    def fileno(self) -> int:
        """Return the file descriptor. Raise OSError if there is none."""
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()

    def discard(self) -> None:
        """After an error, redirect the descriptor, so that the flush at exit does not fail too."""
        if self.error is not None:
            with suppress(Exception):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.fileno())
                os.close(null)


@contextmanager
def guarded_output() -> Iterator[tuple[GuardedStream, GuardedStream]]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by guarded streams, and yield the two."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Otherwise the next file that is opened, such as the model, would be standard error.
            os.open(os.devnull, os.O_RDWR)
    out, error = GuardedStream(sys.stdout), GuardedStream(sys.stderr)
    with redirect_stdout(cast("TextIO", out)), redirect_stderr(cast("TextIO", error)):
        try:
            yield out, error
        finally:
            out.flush()
            error.flush()
            out.discard()
            error.discard()
