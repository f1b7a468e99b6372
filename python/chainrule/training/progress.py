"""What a person sees of a training run while it runs, and how they stop it."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from .history import Epoch


class Progress:
    """A line for each epoch, and while it runs a bar, if tqdm and somebody who watches are there.

    Everything goes to stderr, so that a program's own output stays clean.
    """

    def __init__(self, epochs: int, batches: int, wanted: bool) -> None:
        self.epochs, self.batches, self.wanted = epochs, batches, wanted
        self._bar: Any = None
        self._tqdm = _tqdm() if wanted else None

    def start(self, epoch: int) -> None:
        self._name = f"epoch {epoch:{len(str(self.epochs))}}/{self.epochs}"
        if self._tqdm is not None:
            self._bar = self._tqdm(
                total=self.batches,
                desc=self._name,
                unit="batch",
                file=sys.stderr,
                bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
                leave=False,
            )

    def batch(self, loss: float, accuracy: float | None) -> None:
        """One batch more; the means of the epoch so far."""
        if self._bar is not None:
            text = f"loss {loss:.4f}" + ("" if accuracy is None else f", accuracy {accuracy:.2%}")
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update()

    def end(self, record: Epoch) -> None:
        # The line takes the bar's place: at its end it says more, and needs the width.
        self.close()
        if self.wanted:
            print(f"{self._name} ({record.seconds:.1f} s): {record}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, text: str) -> None:
        """Tell what must be known whether or not progress was wanted."""
        self.close()
        print(text, file=sys.stderr, flush=True)


def _tqdm() -> Any:
    # In a log file a bar is a thousand lines; a notebook draws one without a terminal.
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        return importlib.import_module("tqdm.auto").tqdm
    except ImportError:
        return None


class Interrupt:
    """Turns the first Ctrl-C into a flag, so that no step is cut in half; the second one raises.

    Only in the main thread, where Python handles signals, and only in place of Python's own
    handler: a program that has set another keeps it.
    """

    def __init__(self) -> None:
        self.asked = False
        self.insisted = False
        self._installed = False

    def __enter__(self) -> Interrupt:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.insisted = True
            raise KeyboardInterrupt
        self.asked = True
