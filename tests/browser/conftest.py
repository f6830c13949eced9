"""A running demo in a process of its own, and a real browser to look at it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = os.environ.get("ATOMA_SCREENSHOTS") == "1"


@dataclass
class RunningDemo:
    """``atoma demo`` in a process of its own.

    Attributes:
        process: The process.
        address: Of the page, with a slash at the end.
        directory: Where its files are.
    """

    process: subprocess.Popen[str]
    address: str
    directory: Path

    def interrupt(self, within_s: float) -> tuple[int, str]:
        """Ctrl-C: the exit code and what was printed since; fails when it takes longer than ``within_s``."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=within_s)
        return self.process.returncode, output

    def stop(self) -> None:
        """Kill it, if it still runs."""
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.kill()
            self.process.communicate()


def start_demo(directory: Path) -> RunningDemo:
    """Start the demo on a free port and wait for its address."""
    command = [sys.executable, "-m", "atoma", "demo", "--port", "0", "--dir", str(directory)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    printed: list[str] = []
    for line in process.stdout:
        printed.append(line)
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        if found:
            return RunningDemo(process, found[0], directory)
    process.wait()
    raise AssertionError(f"the demo did not start:\n{''.join(printed)}")


@pytest.fixture
def start() -> Iterator[Callable[[Path], RunningDemo]]:
    """Starts demos on the files of a directory; whatever still runs at the end is killed."""
    started: list[RunningDemo] = []

    def begin(directory: Path) -> RunningDemo:
        started.append(start_demo(directory))
        return started[-1]

    yield begin
    for running in started:
        running.stop()


@pytest.fixture(scope="module")
def shared_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """One demo for the tests that change nothing."""
    running = start_demo(tmp_path_factory.mktemp("shared"))
    yield running
    running.stop()


@pytest.fixture
def demo(start: Callable[[Path], RunningDemo], tmp_path: Path) -> Iterator[RunningDemo]:
    """A running demo with new files; on pictures their folder has the name that users see."""
    if not PICTURES:
        yield start(tmp_path)
        return
    with tempfile.TemporaryDirectory(prefix="atoma-demo-") as folder:
        running = start(Path(folder))
        yield running
        running.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; where there is none, or no Playwright, the test is skipped and says so."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    program = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser on PATH: looked for {', '.join(BROWSERS)} (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


@dataclass
class Window:
    """A browser window on the demo.

    Attributes:
        page: What is shown.
        complaints: Every warning and error of the console, every uncaught exception, every answer of 400 and above.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def window(browser: Browser, demo: RunningDemo) -> Iterator[Window]:
    """A window on the running demo; at the end nothing may have been complained about."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900},
        device_scale_factor=1.5 if PICTURES else 1,
        reduced_motion="reduce" if PICTURES else "no-preference",
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    opened = Window(page)
    page.on("console", lambda said: opened.complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("response", lambda answer: opened.complaints.append(answer.url) if answer.status >= 400 else None)
    page.goto(demo.address)
    yield opened
    context.close()
    assert opened.complaints == []
