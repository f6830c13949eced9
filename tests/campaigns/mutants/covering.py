"""Which tests run a line: measured once for a commit, over every test that runs the product in its own process."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.campaigns.contexts import FOLDER
from tests.campaigns.mutants.catalogue import Mutant

SUITES: Final = (
    "tests/unit/sync",
    "tests/unit/hub",
    "tests/unit/stores",
    "tests/unit/runtime",
    "tests/unit/client",
    "tests/unit/contracts",
    "tests/unit/reactive",
    "tests/unit/query",
    "tests/unit/inspector",
    "tests/scenarios/sync",
    "tests/scenarios/remote",
    "tests/scenarios/test_cached_reads.py",
    "tests/scenarios/test_remote_reads.py",
    "tests/scenarios/test_local_only.py",
    "tests/scenarios/test_transfer.py",
    "tests/scenarios/migrations",
    "tests/scenarios/cli",
    "tests/scenarios/encryption",
    "tests/scenarios/processes",
    "tests/power",
    "tests/scenarios/test_authorisation.py",
    "tests/scenarios/test_closing.py",
    "tests/scenarios/test_durability.py",
    "tests/scenarios/test_left_writes.py",
    "tests/scenarios/test_presence.py",
    "tests/scenarios/test_sessions.py",
    "tests/scenarios/test_soft_delete.py",
    "tests/scenarios/test_writes_by_query.py",
    "tests/scenarios/test_wrong_inputs.py",
    "tests/properties",
    "tests/conformance",
    "tests/golden",
    "tests/simulation",
)
_ENCRYPTED: Final = ("tests/scenarios/encryption/test_own_environment.py::test_files_are_encrypted_as_promised",)
ELSEWHERE: Final = {
    "stores/atoma_stores/sqlite/encryption.py": _ENCRYPTED,
    "stores/atoma_stores/sqlite/rekeying.py": _ENCRYPTED,
}
"""Tests that run a module in a process of their own, which is not measured: the usual build of apsw encrypts nothing."""
ALIKE_MAX = 15
STEM = 4
NOT_THE_LINE = "not soak and not finished and not browser"


@dataclass(frozen=True, slots=True)
class Covering:
    """The measured run.

    Attributes:
        by_line: For a module, the tests that run each of its lines.
        seconds: What each test took.
    """

    by_line: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]

    def tests_for(self, mutant: Mutant, lines: range) -> list[str]:
        """The tests of the mutant's line, else of its function's ``lines``, else of its module; whole files, cheap first."""
        module = self.by_line.get(mutant.module, {})
        found = set(module.get(mutant.line, ()))
        if not found:
            found = {test for line in lines for test in module.get(line, ())}
        if not found or mutant.function == "<module>":
            found = {test for tests in module.values() for test in tests}
        files: dict[str, list[str]] = defaultdict(list)
        for test in sorted(found, key=self._cost):
            files[test.partition("::")[0]].append(test)
        near = [test for tests in sorted(files.values(), key=self._cost_of_all) for test in tests]
        return [*near, *ELSEWHERE.get(mutant.module, ())]

    def within(self, tests: Sequence[str], budget_s: float, *, first: Container[str] = ()) -> list[str]:
        """Those of ``tests`` that take ``budget_s`` together, in their order; at least one.

        A test of the line need not look at what the line does, so they are spread. Every suite has the same share, a
        scenario and a seed of the simulation as well as what is cheap. In a suite come those that are in ``first``, then one
        test of each file before a second one of any, for a file has a subject; and in a file the cheap ones, one case of
        each before a second case of any.

        Args:
            tests: To choose from.
            budget_s: What they may take, in seconds.
            first: Tests that noticed other mutants of the module; they run before all others.
        """
        waiting: dict[str, list[str]] = defaultdict(list)
        of_file: dict[str, list[tuple[int, float, str]]] = defaultdict(list)
        cases: Counter[str] = Counter()
        for test in sorted(tests, key=self._cost):
            name = test.partition("[")[0]
            of_file[test.partition("::")[0]].append((cases[name], self._cost(test), test))
            cases[name] += 1
            waiting[_suite(test)].append(test)
        turns = {
            test: (test not in first, turn, self._cost(test))
            for found in of_file.values()
            for turn, (_, _, test) in enumerate(sorted(found))
        }
        for of_suite in waiting.values():
            of_suite.sort(key=turns.__getitem__, reverse=True)
        spent = dict.fromkeys(waiting, 0.0)
        chosen: set[str] = set()
        while waiting:
            suite = min(waiting, key=lambda one: (spent[one], self._cost(waiting[one][-1])))
            test = waiting[suite].pop()
            if not waiting[suite]:
                del waiting[suite]
            if not chosen or sum(spent.values()) + self._cost(test) <= budget_s:
                spent[suite] += self._cost(test)
                chosen.add(test)
        return sorted((test for test in tests if test in chosen), key=lambda test: test not in first)

    def every_line(self, module: str, tests: Sequence[str]) -> list[str]:
        """A few of ``tests`` that run every line of ``module`` which any of them runs.

        Who runs the rare lines has brought about what the module is there for; most others only pass through.
        """
        asked, chosen = frozenset(tests), list[str]()
        lines = (asked.intersection(found) for found in self.by_line.get(module, {}).values())
        for found in sorted(filter(None, lines), key=len):
            if found.isdisjoint(chosen):
                chosen.append(min(found, key=lambda test: (self._cost(test), test)))
        return chosen

    def alike(self, tests: Sequence[str], text: str, most: int = ALIKE_MAX) -> list[str]:
        """Those of ``tests`` whose names have words of ``text``, the rarer the better: they are likely about it.

        One for each set of words, so that the cases of one test do not take every place.
        """
        words = {test: _words(test) for test in tests}
        common = Counter(word for found in words.values() for word in found)
        wanted = _words(text)
        scores = {test: sum(1 / common[word] for word in found & wanted) for test, found in words.items()}
        best = {frozenset(words[test] & wanted): test for test in sorted(tests, key=self._cost, reverse=True)}
        return sorted((test for test in best.values() if scores[test]), key=lambda test: -scores[test])[:most]

    def seconds_of(self, tests: Sequence[str]) -> float:
        """What ``tests`` took together when they were measured."""
        return sum(map(self._cost, tests))

    def _cost(self, test: str) -> float:
        return self.seconds.get(test, 1.0)

    def _cost_of_all(self, tests: Sequence[str]) -> float:
        return self.seconds_of(tests)


def _words(text: str) -> set[str]:
    """The beginnings of the words in ``text``: `pushes` and `pushing` are the same."""
    return {word[:STEM].lower() for word in re.findall(r"[A-Z]?[a-z]{3,}", text)}


def _suite(test: str) -> str:
    """The suite of ``test``: the first that holds it, else its file."""
    file = test.partition("::")[0]
    return next((suite for suite in SUITES if file.startswith(suite)), file)


def measure(root: Path, folder: Path, *, processes: int) -> Covering:
    """The measured run of the checkout at ``root``; what ``folder`` holds of it already is not run again."""
    kept = folder / "covering.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "tests.campaigns.contexts",
            "--hypothesis-profile=campaign",
        ]
        command += ["-m", NOT_THE_LINE, "-n", str(processes), *[suite for suite in SUITES if (root / suite).exists()]]
        print(f"measuring which tests run which lines, in {processes} processes...", flush=True)
        code = subprocess.run(command, cwd=root, env={**os.environ, FOLDER: str(folder)}, check=False).returncode
        if code not in (0, 1):  # 1: tests failed, and are left out
            raise SystemExit(f"the tests could not be measured: pytest ended with {code}")
        kept.write_text(json.dumps(_combined(root, folder)), encoding="utf-8")
    found = json.loads(kept.read_text(encoding="utf-8"))
    by_line = {name: {int(line): tests for line, tests in lines.items()} for name, lines in found["by_line"].items()}
    return Covering(by_line, found["seconds"])


def of_importers(root: Path, by_line: Mapping[str, Mapping[int, list[str]]]) -> dict[str, dict[int, list[str]]]:
    """For modules that run only while they are imported, before any test: the tests of those that import them.

    Tables and statements stand in such modules; what is wrong with them shows where they are used.
    """
    tests = {name: {test for found in lines.values() for test in found} for name, lines in by_line.items()}
    imported = {name: _imported((root / name).read_text(encoding="utf-8")) for name in by_line}
    found: dict[str, dict[int, list[str]]] = {}
    for name in (name for name in by_line if not tests[name]):
        parts = Path(name).with_suffix("").parts
        dotted = ".".join(parts[parts[0] in ("stores", "transports") :])
        found[name] = {1: sorted({test for other in by_line if dotted in imported[other] for test in tests[other]})}
    return found


def _imported(source: str) -> set[str]:
    """The modules that ``source`` imports, and what it takes from them, which may be modules as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def _combined(root: Path, folder: Path) -> dict[str, object]:
    import coverage

    data = coverage.CoverageData(basename=str(folder / "coverage"))
    for part in sorted(folder.glob("coverage.*")):
        other = coverage.CoverageData(basename=str(part))
        other.read()
        data.update(other)
    seconds = _seconds(folder)
    if not seconds:
        raise SystemExit(f"no test was measured: there are no seconds in {folder}")
    by_line: dict[str, dict[int, list[str]]] = {}
    for name in data.measured_files():
        if not Path(name).is_relative_to(root):
            continue
        contexts = data.contexts_by_lineno(name)
        by_line[Path(name).relative_to(root).as_posix()] = {
            line: sorted(filter(seconds.__contains__, tests)) for line, tests in contexts.items()
        }
    by_line |= of_importers(root, by_line)
    return {"by_line": by_line, "seconds": seconds}


def _seconds(folder: Path) -> dict[str, float]:
    """What each test took; one that fails without a fault says nothing about faults, and is left out."""
    took, failed = defaultdict[str, float](float), set[str]()
    for part in folder.glob("seconds.*.jsonl"):
        for line in part.read_text(encoding="utf-8").splitlines():
            test, duration, broke = json.loads(line)
            took[test] += duration
            if broke:
                failed.add(test)
    return {test: seconds for test, seconds in took.items() if test not in failed}
