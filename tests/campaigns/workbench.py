"""A workbench: a copy of the checkout in which one fault at a time meets its tests."""

from __future__ import annotations

import math
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Literal, TypeAlias, TypeVar

ROOT: Final = Path(__file__).resolve().parents[2]
Outcome: TypeAlias = Literal["killed", "timeout", "survived", "uncovered", "broken"]
SLACK_S = 45.0
"""What a run may take beside its tests, in seconds of the processor: the start of Python and the collection."""
PATIENCE = 8
"""How much longer than that a run may last: a machine that does other things too must not make a fault look noticed."""
HANG_S = 60
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a fault: the outcome, the test that noticed it, and the seconds it took."""

    outcome: Outcome
    by: str = ""
    seconds: float = 0.0

    @property
    def noticed(self) -> bool:
        """Whether the tests failed or hung with the fault in place."""
        return self.outcome in ("killed", "timeout")


class Workbench:
    """A copy of what git tracks of a checkout, in a folder of its own."""

    def __init__(self, place: Path, root: Path = ROOT) -> None:
        self._root = root
        self._place = place
        shutil.rmtree(place, ignore_errors=True)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, place / name)

    def try_source(self, module: str, source: str, tests: Sequence[str], *, limit_s: float) -> Verdict:
        """Run ``tests`` with ``source`` in the place of ``module``; the first that fails has noticed it."""
        if not tests:
            return Verdict("uncovered")
        target = self._place / module
        target.write_text(source, encoding="utf-8")
        try:
            return self._run(tests, limit_s=SLACK_S + limit_s)
        finally:
            shutil.copy2(self._root / module, target)

    def _run(self, tests: Sequence[str], *, limit_s: float) -> Verdict:
        chosen = self._place / "chosen.txt"
        chosen.write_text("\n".join(tests), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
        command += ["-p", "tests.campaigns.contexts", "--hypothesis-profile=campaign", "-n", "0", "-o", "addopts="]
        command += ["--import-mode=importlib", "-o", f"faulthandler_timeout={HANG_S}", "-rfE", f"@{chosen.name}"]
        path = os.pathsep.join(str(self._place / part) for part in ("", "stores", "transports"))
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self._place,
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if hasattr(resource, "prlimit"):  # a test that hangs without working is ended by pytest, see HANG_S
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (math.ceil(limit_s), math.ceil(limit_s) + 5))
        try:
            output, _ = process.communicate(timeout=limit_s * PATIENCE)
        except subprocess.TimeoutExpired:
            return Verdict("timeout", seconds=time.monotonic() - started)
        finally:
            _end(process)
        seconds = time.monotonic() - started
        if process.returncode == -signal.SIGXCPU:
            return Verdict("timeout", seconds=seconds)
        return Verdict(*_outcome(process.returncode, output), seconds=seconds)


class SideBySide(Generic[T]):
    """Workbenches that take the next fault as soon as they are free."""

    def __init__(self, trial: Callable[[Workbench, T], Verdict], *, processes: int) -> None:
        self._trial = trial
        self._processes = processes

    def verdicts(self, faults: Sequence[T]) -> Iterator[tuple[T, Verdict]]:
        """Each fault with its verdict, as they come.

        Raises:
            Exception: A trial failed; the others are given up.
        """
        waiting: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        found: queue.SimpleQueue[tuple[T, Verdict] | BaseException] = queue.SimpleQueue()
        for fault in [*faults, *[None] * self._processes]:
            waiting.put(fault)

        def work(place: Path) -> None:
            try:
                bench = Workbench(place)
                while (fault := waiting.get()) is not None:
                    found.put((fault, self._trial(bench, fault)))
            except BaseException as error:
                found.put(error)

        with tempfile.TemporaryDirectory(prefix="atoma-campaign-") as folder:
            for number in range(self._processes):
                threading.Thread(target=work, args=(Path(folder, str(number)),), daemon=True).start()
            for _ in faults:
                item = found.get()
                if isinstance(item, BaseException):
                    raise item
                yield item


def current_commit() -> str:
    """The commit that is checked out."""
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
    return said.stdout.strip()


def _outcome(code: int, output: str) -> tuple[Outcome, str]:
    noticed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if code == 0:
        return "survived", ""
    if code in (4, 5) and not noticed:  # pytest could not use what it was given: nothing is known of the fault
        return "broken", output[-300:]
    return "killed", noticed[0].split(" ", 1)[1].split(" - ")[0] if noticed else "the run itself"


def _end(process: subprocess.Popen[str]) -> None:
    """End the run with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
