"""A headless Chromium under a test's hand, over DevTools' pipe: no driver, no port, no package."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120.0


def chromium() -> str | None:
    """Where it is, if it is installed (Debian: apt-get install chromium)."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One process with a profile of its own; pages are opened one after another.

    Args:
        profile: an empty folder.
    """

    def __init__(self, profile: Path) -> None:
        program = chromium()
        assert program
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # Chromium listens on 3 and answers on 4; where these are taken here, they are not any more in the child.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (read, write)]

        def arrange() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += ["--disable-background-networking", "--no-first-run", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [program, *options, "--remote-debugging-pipe", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=arrange,
        )  # fmt: skip
        for end in (read, write, *ends):
            os.close(end)
        self._number, self._buffer = 0, b""
        self.requests: list[str] = []
        """What the open page has asked for, its own address first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._read)
        os.close(self._write)

    def open(
        self,
        url: str,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        script: bool = True,
        media: str = "",
    ) -> None:
        """Show a page, as wide as that; ``script=False`` is a browser without JavaScript, ``media`` may be print."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self._call("Network.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme], media=media)
        self._call("Emulation.setScriptExecutionDisabled", value=not script)
        self.requests.clear()
        self._call("Page.navigate", url=url)
        self._until("Page.loadEventFired")

    _session: str | None = None

    def evaluate(self, expression: str) -> Any:
        """What an expression says in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, *words: str, seconds: float = 60) -> str:
        """The page's text, once all these words are in it and stay there: pages draw themselves more than once."""
        return self.wait_until(f"{json.dumps(words)}.every(word => document.body.innerText.includes(word))", seconds)

    def wait_until(self, condition: str, seconds: float = 60) -> str:
        """The page's text, once an expression has been true for half a second."""
        looked = (
            f"new Promise(done => {{ const end = Date.now() + {seconds * 1000}; let held = 0; const look = () => {{ "
            f"held = ({condition}) ? held + 1 : 0; held > 5 ? done(true) : Date.now() > end ? done(false) "
            ": setTimeout(look, 100) }; look() })"
        )
        held, text = self.evaluate(looked), str(self.evaluate("document.body.innerText"))
        assert held, f"{condition} is not so in:\n{text}"
        return text

    def click(self, text: str, seconds: float = 60) -> None:
        """Click on the first visible link or button with this text, once there is one; no link opens a new tab."""
        clickable = (
            "[...document.querySelectorAll('a, button, [role=button], [role=tab]')]"
            f".find(each => each.innerText?.trim() === {json.dumps(text)} && each.getClientRects().length)"
        )
        self.wait_until(f"Boolean({clickable})", seconds)
        self.evaluate(f"{clickable}.removeAttribute('target')")
        self.evaluate(f"{clickable}.click()")

    def screenshot(self, file: Path) -> Path:
        """The whole page as a PNG."""
        metrics = self._call("Page.getLayoutMetrics")
        size, seen = metrics["cssContentSize"], metrics["cssLayoutViewport"]
        if size["height"] <= seen["clientHeight"]:  # looking beyond resizes the window, and some pages start anew
            file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))
            return file
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 12000), "scale": 1}
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file

    def wait_for_colour(self, colour: tuple[int, int, int], file: Path, seconds: float = 60) -> int:
        """How many points of the page have a colour, once there are any; for frames that nobody may look into."""
        import numpy as np
        from PIL import Image

        end = time.monotonic() + seconds
        while True:
            points = int((np.asarray(Image.open(self.screenshot(file)).convert("RGB")) == colour).all(axis=2).sum())
            if points or time.monotonic() > end:
                return points

    def pdf(self, file: Path) -> Path:
        """The page as it is printed."""
        printed = self._call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        file.write_bytes(base64.b64decode(printed["data"]))
        return file

    def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        own = {"sessionId": self._session} if self._session else {}
        os.write(
            self._write, json.dumps({"id": self._number, "method": method, "params": params, **own}).encode() + b"\0"
        )
        return self._until(None)

    def _until(self, event: str | None) -> Any:
        """The answer to the last call, or an event's parameters."""
        end = time.monotonic() + PATIENCE
        while True:
            message = self._next(end)
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            if event is None and message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            if event is not None and message.get("method") == event:
                return message["params"]

    def _next(self, end: float) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            read = os.read(self._read, 1 << 16)
            assert read, "Chromium has ended"
            self._buffer += read
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)
