"""Programs that the benchmarks start: orders go in on standard input, one line of JSON comes back for each."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Program:
    """One of them, running."""

    process: subprocess.Popen[str]

    def ask(self, order: object) -> dict[str, Any]:
        """Send one line and read the answer."""
        self.send(order)
        return self.hear()

    def send(self, order: object) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running(module: str, *arguments: str) -> Iterator[Program]:
    """``python -m module arguments`` until the block is left."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Program(process)
    finally:
        process.kill()
        process.wait()


def tell(answer: object) -> None:
    """One line to whoever started this process."""
    print(json.dumps(answer), flush=True)


def resident() -> int:
    """Bytes of memory this process holds; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
    except OSError:
        return 0


def peak() -> int:
    """The most bytes of memory that this process has held so far; 0 where the system does not tell.

    Not ``ru_maxrss``: that of a program begins with what its parent held.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def allow_files(wanted: int) -> None:
    """Let this process have so many files and sockets open, as far as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))


def answer_questions(more: Callable[[], dict[str, float]] = dict) -> None:
    """Tell CPU and memory, and ``more``, whenever a line comes in; the end of standard input ends the process."""
    for _ in sys.stdin:
        tell({"cpu_s": time.process_time(), "resident": resident(), **more()})
    os._exit(0)
