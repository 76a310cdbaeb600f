"""Report pages loaded in a headless Chromium by Playwright."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Dialog

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LAUNCH_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Root needs `--no-sandbox`; the rest keep Chromium off the network."""


def find_chromium() -> str | None:
    """Return the browser of RLHFCTL_CHROMIUM, else the first on the path; None without one.

    Raises:
        FileNotFoundError: RLHFCTL_CHROMIUM is not a program.
    """
    configured = os.environ.get("RLHFCTL_CHROMIUM")
    if configured:
        program = shutil.which(configured)
        if program is None:
            raise FileNotFoundError(f"RLHFCTL_CHROMIUM={configured}: there is no such program")
        return program
    programs = (path for name in PROGRAMS if (path := shutil.which(name)))
    return next((path for path in programs if _starts(path)), None)


def _starts(program: str) -> bool:
    """Refuse Ubuntu's placeholder, which only prints how to install Chromium."""
    version = subprocess.run([program, "--version"], capture_output=True, check=False)
    return version.returncode == 0


class LoadedPage:
    """A page in a browser context of its own, loaded completely.

    Args:
        browser: Running browser.
        file: HTML file.
        width: Viewport width in CSS pixels.
        height: Viewport height in CSS pixels.
        dark: Emulate a preference for dark colours.
        script: Let the page run its scripts.

    Attributes:
        page: Playwright's page.
        requests: URLs that the page requested.
        messages: Console messages, uncaught errors and dialogs.
    """

    def __init__(
        self,
        browser: Browser,
        file: Path,
        *,
        width: int = 1200,
        height: int = 900,
        dark: bool = False,
        script: bool = True,
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            is_mobile=width < 600,
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._record_console)
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", self._record_dialog)
        self.page.goto(file.as_uri())
        # `page.evaluate` needs `eval`, which the page's CSP forbids; the protocol itself does not.
        self._protocol = self.context.new_cdp_session(self.page)

    def value(self, expression: str) -> Any:
        """Evaluate a JavaScript expression, even where the page's own scripts may not run."""
        answer = self._protocol.send(
            "Runtime.evaluate", {"expression": expression, "returnByValue": True}
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _record_console(self, message: ConsoleMessage) -> None:
        self.messages.append(message.text)

    def _record_dialog(self, dialog: Dialog) -> None:
        self.messages.append(dialog.message)
        dialog.dismiss()
