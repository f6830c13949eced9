"""A real server for an application of ``applications.py``, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Served:
    """A server that runs.

    Attributes:
        address: ``127.0.0.1:port``.
        process: The server.
    """

    address: str
    process: subprocess.Popen[str]

    def stop(self) -> str:
        """Ask it to end as a service manager does; what it said."""
        self.process.terminate()
        return self.process.communicate(timeout=30)[1]


def launch(name: str, folder: Path, port: str = "0", patience_s: int = 5) -> subprocess.Popen[str]:
    """Start the server of an application, one of ``applications.py`` or ``module:factory``, on the files of a folder.

    When it is to end, it waits ``patience_s`` for what still answers.
    """
    application = name if ":" in name else f"tests.scenarios.web.applications:{name}"
    lifespan = "off" if name == "django" else "on"
    command = [sys.executable, "-m", "uvicorn", "--factory", application]
    command += ["--port", port, "--lifespan", lifespan, "--timeout-graceful-shutdown", str(patience_s)]
    environment = {**os.environ, "ATOMA_FOLDER": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def servers(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves applications by their names, on the files of a folder; what still runs at the end is killed."""
    running: list[Served] = []

    def start(name: str, port: str = "0", patience_s: int = 5) -> Served:
        process = launch(name, tmp_path, port, patience_s)
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "running on http://" in line:
                break
        else:
            pytest.fail("".join(said))
        served = Served(line.partition("http://")[2].split()[0], process)
        running.append(served)
        return served

    try:
        yield start
    finally:
        for served in running:
            if served.process.poll() is None:
                served.process.kill()
                served.process.communicate()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves an application by its name."""
    with servers(tmp_path) as start:
        yield start
