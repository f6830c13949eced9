"""A workbench: a copy of the checkout in which one mutant at a time meets its tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tests.mutants.catalogue import Mutant, mutated

Outcome: TypeAlias = Literal["killed", "timeout", "survived", "uncovered", "broken"]
SLACK_S = 45.0
"""What a run may take beside its tests: the start of Python and the collection, on a machine that does other things too."""
HANG_S = 60


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: the outcome, the test that noticed it, and the seconds it took."""

    outcome: Outcome
    by: str = ""
    seconds: float = 0.0


class Workbench:
    """A copy of what git tracks of a checkout, in a folder of its own."""

    def __init__(self, root: Path, place: Path) -> None:
        self._root = root
        self._place = place
        shutil.rmtree(place, ignore_errors=True)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, place / name)

    def try_mutant(self, mutant: Mutant, tests: Sequence[str], seconds: float) -> Verdict:
        """Run ``tests``, which take ``seconds`` without it, on the mutant; the first that fails has killed it."""
        if not tests:
            return Verdict("uncovered")
        target = self._place / mutant.module
        target.write_text(mutated(mutant, self._root), encoding="utf-8")
        try:
            return self._run(tests, limit_s=SLACK_S + 4 * seconds)
        finally:
            shutil.copy2(self._root / mutant.module, target)

    def _run(self, tests: Sequence[str], *, limit_s: float) -> Verdict:
        chosen = self._place / "chosen.txt"
        chosen.write_text("\n".join(tests), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
        command += ["-p", "tests.mutants.contexts", "--hypothesis-profile=mutants", "-n", "0", "-o", "addopts="]
        command += ["--import-mode=importlib", "-o", f"faulthandler_timeout={HANG_S}", "-rfE", f"@{chosen.name}"]
        path = os.pathsep.join(str(self._place / part) for part in ("", "stores", "transports"))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self._place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return Verdict("timeout", seconds=time.monotonic() - started)
        finally:
            _end(process)
        return Verdict(*_outcome(process.returncode, output), seconds=time.monotonic() - started)


def _outcome(code: int, output: str) -> tuple[Outcome, str]:
    noticed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if code == 0:
        return "survived", ""
    if code in (4, 5) and not noticed:  # pytest could not use what it was given: nothing is known of the mutant
        return "broken", output[-300:]
    return "killed", noticed[0].split(" ", 1)[1].split(" - ")[0] if noticed else "the run itself"


def _end(process: subprocess.Popen[str]) -> None:
    """End the run with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
