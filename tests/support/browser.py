"""A headless Chromium for the tests, controlled by the DevTools protocol over two pipes.

Playwright would replace this file, but its wheel has 53 MB (165 MB installed, with Node.js). That
nearly doubles the environment of the README's test command, for tests that also require a Chromium
from the system. This file requires only the standard library.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# A container may have neither network access nor a sandbox. The page is a local file of the tests.
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
# Returns the contrast ratio of WCAG 2 per selector, of the first element that it selects.
CONTRAST = r"""
(() => {
  const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const light = (c) => {
    const [r, g, b] = c.map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const s of SELECTORS) {
    const e = document.querySelector(s);
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    found[s] = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  }
  return found;
})()
"""
# Seconds without an answer after which the browser counts as stuck. Not a measure of the page.
TIMEOUT = 120.0


def chromium() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


class Tab:
    """One tab of the browser.

    Attributes
    ----------
    events : list of dict
        All events so far: console output, errors and requests.
    """

    def __init__(self, write_pipe: int, read_pipe: int) -> None:
        self._write_pipe, self._read_pipe = write_pipe, read_pipe
        self._count = 0
        self._buffer = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run a command of the DevTools protocol and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write_pipe, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while b"\0" not in self._buffer:
            remaining = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._read_pipe], [], [], remaining)
            part = os.read(self._read_pipe, 1 << 20) if ready else b""
            assert part, "the browser must answer, but it exited or is stuck"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        if "method" in answer:
            self.events.append(answer)
        return answer

    def open(self, url: str) -> None:
        """Load a page, and wait for its load event."""
        first = len(self.events)
        self.call("Page.navigate", url=url)
        while not any(each["method"] == "Page.loadEventFired" for each in self.events[first:]):
            self._read()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def contrast(self, selectors: Sequence[str]) -> dict[str, float]:
        """Return the contrast ratio of the text of an element to its background, per selector."""
        ratios: dict[str, float] = self.evaluate(
            CONTRAST.replace("SELECTORS", json.dumps(list(selectors)))
        )
        return ratios

    def click(self, selector: str) -> None:
        """Scroll to an element and click on its center, as with a mouse."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2];"
            "})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Write text into the focused element, as with a keyboard."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key, such as "Tab", "Enter", " " or "ArrowRight"."""
        code = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        data = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        down = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=down, text=text, **data)
        self.call("Input.dispatchKeyEvent", type="keyUp", **data)

    def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """Set the size of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def screenshot(self, selector: str, path: Path) -> None:
        """Scroll to an element, and write a screenshot of it as PNG."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'start', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return {x: b.x + scrollX, y: b.y + scrollY, "
            "width: b.width, height: b.height, scale: 1, "
            "beyond: b.top < 0 || b.bottom > innerHeight}; })()"
        )
        # Beyond the window, the browser draws the whole page, which takes ten times as long.
        beyond = box.pop("beyond")
        picture = self.call(
            "Page.captureScreenshot",
            captureBeyondViewport=beyond,
            optimizeForSpeed=True,
            clip=box,
        )
        path.write_bytes(base64.b64decode(picture["data"]))

    def pdf(self) -> bytes:
        """Return the page printed as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def browser(path: str) -> Iterator[Tab]:
    """Start a browser with an empty profile, and return one tab as a context manager."""
    commands, answers = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads from file descriptor 3 and writes to file descriptor 4.
        shell = f'exec "$0" "$@" 3<&{commands[0]} 4>&{answers[1]}'
        process = subprocess.Popen(
            ["bash", "-c", shell, path, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(commands[0], answers[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands[0])
        os.close(answers[1])
        try:
            yield Tab(commands[1], answers[0])
        finally:
            os.close(commands[1])  # The browser exits when its input is closed.
            os.close(answers[0])
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
