"""A real headless Chromium over its debugging pipe, as far as the tests of pages need one."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0  # seconds for one answer
# Chromium reads commands from descriptor 3 and answers on 4.
_START = (
    "import fcntl, os, sys; at = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 16) for n in sys.argv[1:3]]; "
    "os.dup2(at[0], 3); os.dup2(at[1], 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find() -> str | None:
    """The browser that RLHFCTL_CHROMIUM names, else the first on the path; None without one.

    Raises:
        FileNotFoundError: RLHFCTL_CHROMIUM names none.
    """
    named = os.environ.get("RLHFCTL_CHROMIUM")
    if named:
        found = shutil.which(named)
        if found is None:
            raise FileNotFoundError(f"RLHFCTL_CHROMIUM={named}: there is no such program")
        return found
    found = (path for name in NAMES if (path := shutil.which(name)))
    return next((path for path in found if _starts(path)), None)


def _starts(program: str) -> bool:
    """Whether a program of that name is one: Ubuntu's only says how to install it."""
    asked = subprocess.run([program, "--version"], capture_output=True, check=False)
    return asked.returncode == 0


class Browser:
    """One browser process; every page it opens is a tab of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _START, str(commands), str(answers), program),
                *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
                *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
                *("--hide-scrollbars", f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._rest = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Give a command and return its result; what happens meanwhile is added to `events`."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self.receive()
            if message.get("id") == self._last:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def receive(self) -> dict[str, Any]:
        """The next message of the browser."""
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], until - time.monotonic())
            assert ready, "the browser does not answer"
            read = os.read(self._answers, 1 << 20)
            assert read, "the browser has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, file: Path, **how: Any) -> "Tab":
        """Open a file in a tab of its own; see `Tab`."""
        return Tab(self, file, **how)

    def close(self) -> None:
        """End the browser."""
        with suppress(OSError, AssertionError):
            self.call("Browser.close")
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tab:
    """A page, loaded whole.

    Args:
        browser: Where to open it.
        file: The page.
        width: Of the window, in CSS pixels.
        dark: Whether the reader prefers dark.
        script: Whether scripts may run.
    """

    def __init__(
        self,
        browser: Browser,
        file: Path,
        *,
        width: int = 1200,
        dark: bool = False,
        script: bool = True,
    ) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call("Page.navigate", url=file.as_uri())
        while not self._happened("Page.loadEventFired"):
            browser.events.append(browser.receive())

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page, even where the page's own may not run."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        events = self._happened("Network.requestWillBeSent")
        return [event["request"]["url"] for event in events]

    def complaints(self) -> list[Any]:
        """What the console and the log had to say, uncaught errors and dialogs."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [
            event
            for kind in (*kinds, "Page.javascriptDialogOpening")
            for event in self._happened(kind)
        ]

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(
            self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        )

    def _happened(self, method: str) -> list[dict[str, Any]]:
        return [
            event["params"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] == method
        ]
