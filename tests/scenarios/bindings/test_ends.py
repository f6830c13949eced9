"""However a program with a binding ends, its file is closed and what it wrote is there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("machine")
PROGRAMS = Path(__file__).parent / "programs.py"
SECONDS_MAX = 120  # a guard against one that hangs
INTERRUPT_S = 15  # a promise of one second, on a machine that does other things too


def start(name: str, folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-W",
        "error",
        "-W",
        "ignore::DeprecationWarning",
        str(PROGRAMS),
        name,
        str(folder / "a.db"),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def written(folder: Path) -> list[str]:
    assert not (folder / "a.db-wal").exists(), "the file was not closed"
    with closing(sqlite3.connect(folder / "a.db")) as file:
        return [id for (id,) in file.execute("SELECT id FROM notes")]


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("name", ["waits", "waits_under_asyncio"])
def test_an_interrupt_ends_a_waiting_program_at_once_and_closes_its_file(name: str, tmp_path: Path) -> None:
    with start(name, tmp_path) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "waiting\n"
        program.send_signal(signal.SIGINT)
        started = time.monotonic()
        out, err = program.communicate(timeout=SECONDS_MAX)
    assert (out, err, program.returncode) == ("interrupted\n", "", 0)
    assert time.monotonic() - started < INTERRUPT_S
    assert written(tmp_path) == ["1"]


def test_a_program_that_never_closes_its_client_ends_and_loses_nothing(tmp_path: Path) -> None:
    with start("never_closes", tmp_path) as program:
        out, err = program.communicate(timeout=SECONDS_MAX)
    assert (out, err, program.returncode) == ("", "", 0)
    assert written(tmp_path) == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_is_told_to_open_a_client_of_its_own(tmp_path: Path) -> None:
    with start("forks", tmp_path) as program:
        out, err = program.communicate(timeout=SECONDS_MAX)
    assert "opened before this process was forked" in out
    assert (err, program.returncode) == ("", 0)
    assert written(tmp_path) == ["1"]
