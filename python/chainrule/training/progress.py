"""Progress output during training, and Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from .._optional import lazy_import
from .history import Epoch


class Progress:
    """Print one line per epoch, and a progress bar while it runs.

    The bar requires tqdm, and a terminal or a notebook. All output goes to stderr, because
    stdout belongs to the user's program. A notebook shows stderr as an error, so it gets the output
    on stdout. Output that cannot be written is dropped: there may be no stderr, a full disk, or no
    reader. Training continues.

    Parameters
    ----------
    epochs, batches : int
        The number of epochs, and of batches per epoch.
    enabled : bool
        Whether to print lines and bars. `write` prints in any case.
    """

    def __init__(self, epochs: int, batches: int, enabled: bool) -> None:
        self.epochs, self.batches, self.enabled = epochs, batches, enabled
        self._bar: Any = None
        self._tqdm = _tqdm() if enabled else None

    def start_epoch(self, epoch: int) -> None:
        self._name = f"epoch {epoch:{len(str(self.epochs))}}/{self.epochs}"
        if self._tqdm is not None:
            try:
                self._bar = self._tqdm(
                    total=self.batches,
                    desc=self._name,
                    unit="batch",
                    file=_stream(),
                    bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
                    leave=False,
                )
            except Exception:
                self._drop_bar()

    @property
    def shows_batches(self) -> bool:
        """True if there is a bar. Without one, `finish_batch` does nothing."""
        return self._bar is not None

    def finish_batch(self, loss: float, accuracy: float | None) -> None:
        """Advance the bar by one batch, and show the means of the epoch so far."""
        if self._bar is not None:
            text = f"loss {loss:.4f}" + ("" if accuracy is None else f", accuracy {accuracy:.2%}")
            try:
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.update()
            except Exception:
                self._drop_bar()

    def finish_epoch(self, record: Epoch) -> None:
        # The line replaces the bar: it contains more, and takes the full width.
        self.close()
        if self.enabled:
            _print(f"{self._name} ({record.seconds:.1f} s): {record}")

    def close(self) -> None:
        if self._bar is not None:
            try:
                self._bar.close()
            except Exception:
                self._drop_bar()
            self._bar = None

    def write(self, text: str) -> None:
        """Print a line, also if progress is disabled."""
        self.close()
        _print(text)

    def _drop_bar(self) -> None:
        """Show no bar from here on."""
        if self._bar is not None:
            # Otherwise tqdm writes again when the object is deleted.
            self._bar.disable = True
        self._bar = self._tqdm = None


def _print(text: str) -> None:
    stream = _stream()
    # `print` writes to stdout if its file is None.
    if stream is not None:
        with contextlib.suppress(Exception):
            print(text, file=stream, flush=True)


def _stream() -> Any:
    """Return stderr, or stdout if both are streams of a notebook. None if there is no stderr."""
    error, out = getattr(sys, "stderr", None), getattr(sys, "stdout", None)
    return out if _is_notebook(error) and _is_notebook(out) else error


def _is_notebook(stream: object) -> bool:
    """Return whether a stream is that of a Jupyter kernel."""
    return type(stream).__module__ == "ipykernel.iostream"


def _tqdm() -> Any:
    try:
        # A bar would write a thousand lines to a log file. A notebook shows one without a terminal.
        stream = _stream()
        if not (_is_notebook(stream) or (stream is not None and stream.isatty())):
            return None
        # Not `tqdm.auto`: a notebook keeps one of its widgets per epoch, empty in the saved file.
        return lazy_import("tqdm.std").tqdm
    # Also an object in place of stderr without `isatty`, or a closed one.
    except Exception:
        return None


def _after_fork() -> None:
    # Another thread may have held tqdm's lock at the fork. The child has no such thread.
    if "tqdm.std" in sys.modules:
        sys.modules["tqdm.std"].tqdm.set_lock(threading.RLock())


os.register_at_fork(after_in_child=_after_fork)


class Interrupt:
    """Turn the first Ctrl-C into a flag, so that the current step is finished. The second raises.

    This works in the main thread only, because Python handles signals there. A handler that the
    user's program has installed stays in place. If a callback of one training runs another, Ctrl-C
    ends both. If the block ends with another exception after
    Ctrl-C, KeyboardInterrupt replaces it. If it ends without one, the caller must read `requested`.

    Attributes
    ----------
    requested : bool
        Whether Ctrl-C was pressed.
    repeated : bool
        Whether it was pressed again.
    """

    def __init__(self) -> None:
        self.requested = False
        self.repeated = False
        self._installed = False
        self._outer: Interrupt | None = None
        self._inner: list[Interrupt] = []

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is not threading.main_thread():
            return self
        handler = signal.getsignal(signal.SIGINT)
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        elif isinstance(outer := getattr(handler, "__self__", None), Interrupt):
            self._outer = outer
            outer._inner.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._outer is not None:
            self._outer._inner.remove(self)
        # A caller that handles this error would otherwise never see the Ctrl-C.
        if self.requested and kind is not None and not issubclass(kind, KeyboardInterrupt):
            raise KeyboardInterrupt from error

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated = self.requested
        for each in (self, *self._inner):
            each.repeated = each.requested
            each.requested = True
        if repeated:
            raise KeyboardInterrupt
