"""A real Chromium without a window, as the system has it installed, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.support.waiting import wait_until

PATIENCE_MS = 120_000
"""However busy the machine is: nobody waits so long for what comes."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)


@dataclass(slots=True)
class Tab:
    """`wrong` is what the browser complained of, `asked` each request: method, address and headers."""

    page: Page
    wrong: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def urls(self) -> list[str]:
        return [url for _, url, _ in self.asked]


class Chromium:
    """Starts again when it has died: one crash is not to fail all that comes after it."""

    def __init__(self, playwright: Playwright, binary: str) -> None:
        # Its processes die on an allocator that is not theirs, and one for the tests may be preloaded.
        env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        self._start = lambda: playwright.chromium.launch(executable_path=binary, args=_ARGUMENTS, env=env)
        self._browser: Browser = self._start()

    def visitor(self) -> BrowserContext:
        """With the storage that its tabs share."""
        wanted: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}, "locale": "en-GB"}
        try:
            return self._browser.new_context(**wanted)
        except PlaywrightError:
            self._browser = self._start()
            return self._browser.new_context(**wanted)

    def close(self) -> None:
        self._browser.close()


@contextmanager
def chromium() -> Iterator[Chromium]:
    """Skips the test where there is none, and fails it where there has to be one."""
    binary = next(filter(None, map(shutil.which, _NAMES)), None)
    if binary is None:
        missing = "no Chromium is installed"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        found = Chromium(playwright, binary)
        yield found
        found.close()


def new_tab(context: BrowserContext) -> Tab:
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    tab = Tab(page)
    page.on("pageerror", lambda error: tab.wrong.append(str(error)))
    page.on("console", lambda message: _note(tab, message.type, message.text))
    page.on("request", lambda request: tab.asked.append((request.method, request.url, request.headers)))
    return tab


def until(page: Page, condition: str) -> None:
    """Playwright's own waiting evaluates text in the page, which the page's policy forbids."""
    wait_until(lambda: page.evaluate(condition), PATIENCE_MS / 1000)


def _note(tab: Tab, kind: str, text: str) -> None:
    """Statuses of answers are no complaint: the page is to tell of them."""
    if kind == "error" and not text.startswith("Failed to load resource"):
        tab.wrong.append(text)
