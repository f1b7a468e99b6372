"""A headless Chromium for the tests, spoken to through its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Neither the network nor a sandbox is at hand in a container; the page is our own file.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--remote-debugging-pipe",
)
# A browser that says nothing for so long hangs; it is no measure of the page.
HANGS = 120.0


def chromium() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


class Tab:
    """One page in the browser.

    Attributes
    ----------
    events : list of dict
        Everything the browser reported so far: console, errors, requests.
    """

    def __init__(self, into: int, outof: int) -> None:
        self._into, self._outof = into, outof
        self._count = 0
        self._left = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run a command of the protocol, and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        ends = time.monotonic() + HANGS
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._outof], [], [], max(0.0, ends - time.monotonic()))
            part = os.read(self._outof, 1 << 20) if ready else b""
            assert part, "the browser has ended or hangs"
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        if "method" in answer:
            self.events.append(answer)
        return answer

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page has loaded."""
        seen = len(self.events)
        self.call("Page.navigate", url=url)
        while not any(each["method"] == "Page.loadEventFired" for each in self.events[seen:]):
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Evaluate JavaScript on the page, and return its value."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """Give the page a window of so many CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def screenshot(self, selector: str, path: Path) -> None:
        """Write what an element looks like to a PNG."""
        box = self.evaluate(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return {x: b.x + scrollX, y: b.y + scrollY, "
            "width: b.width, height: b.height, scale: 1}; })()"
        )
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=box)
        path.write_bytes(base64.b64decode(picture["data"]))

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def browser(path: str) -> Iterator[Tab]:
    """Start a browser with an empty profile, and lend its page."""
    ours, theirs = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads from its file 3 and writes to its file 4.
        shell = f'exec "$0" "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        process = subprocess.Popen(
            ["bash", "-c", shell, path, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(ours[0], theirs[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(ours[0])
        os.close(theirs[1])
        try:
            yield Tab(ours[1], theirs[0])
        finally:
            os.close(ours[1])  # The browser ends when nobody speaks to it.
            os.close(theirs[0])
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
