"""The gateway of ``examples/sensors``: killed in the middle of its work it loses nothing it said, and brings it when there is a hub."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.free_port import free_port
from tests.scenarios.web.conftest import ROOT, Served, servers
from tests.unit.bindings.kit import until

pytestmark = pytest.mark.xdist_group("machine")
NOWHERE = "ws://127.0.0.1:9/sync"


@contextlib.contextmanager
def gateway(folder: Path, hub: str, times: int) -> Iterator[subprocess.Popen[str]]:
    """The gateway as a program."""
    command = [sys.executable, "-m", "examples.sensors.gateway", str(folder / "gateway.db"), hub, str(times), "0.1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def said(running: subprocess.Popen[str], pattern: str, least: int = 0) -> int:
    """The number in the next line like this that is so large."""
    assert running.stdout is not None
    for line in running.stdout:
        found = re.fullmatch(pattern, line.strip())
        if found and int(found[1]) >= least:
            return int(found[1])
    pytest.fail(f"the gateway ended without saying {pattern}")


def in_file(path: Path) -> tuple[int, int]:
    """How many readings a file has, and how many its sensors count."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT (SELECT count(*) FROM readings), (SELECT sum(readings) FROM sensors)").fetchone()  # type: ignore[no-any-return]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves an application by its name."""
    with servers(tmp_path) as start:
        yield start


def test_a_gateway_that_is_killed_without_a_hub_has_it_all_and_the_station_gets_it_later(
    serve: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gateway(tmp_path, NOWHERE, 1_000) as running:
        kept = said(running, r"kept (\d+)", 200)
        running.kill()
    monkeypatch.setenv("STATION_PORT", port := str(free_port()))
    monkeypatch.setenv("STATION_FOLDER", str(tmp_path))
    address = serve("examples.sensors.station:app", port).address
    with gateway(tmp_path, f"ws://{address}/sync", 2) as running:
        begun = said(running, r"begins with (\d+)")
        assert begun >= kept
        assert said(running, r"(\d+) to send") == 0
    readings, counted = in_file(tmp_path / "gateway.db")
    assert readings == counted > begun
    until(lambda: in_file(tmp_path / "station.db") == (readings, counted))
