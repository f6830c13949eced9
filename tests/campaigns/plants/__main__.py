"""The campaign: ``dev.py soak plants``. Every violation must be noticed; results are kept under ``.mutants``."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict

from tests.architecture.test_promises import REFERENCE, rows
from tests.campaigns.plants.plant import Plant, plants
from tests.campaigns.workbench import ROOT, SideBySide, Verdict, Workbench, current_commit

KEPT = ROOT / ".mutants/plants.jsonl"
LIMIT_S = 300.0


def main() -> int:
    """Plant each violation and report; the exit code says whether any went unnoticed or no longer applies."""
    options = _options()
    chosen = [plant for row in options.row or [""] for plant in plants(row=row)]
    stale = [problem for plant in chosen if (problem := _problem(plant))]
    print(*stale, sep="\n")
    commit = current_commit()
    known = {} if options.again else _known(commit)
    named = named_tests()
    due = [plant for plant in chosen if plant.key not in known and not _problem(plant)]
    print(f"{len(chosen)} plants, {len(due)} to try, commit {commit[:12]}", flush=True)

    sound: dict[tuple[str, ...], Verdict] = {}

    def trial(bench: Workbench, plant: Plant) -> Verdict:
        tests = tuple(plant.tests or named[plant.row])
        if tests not in sound:  # a test that fails without the violation notices nothing
            unchanged = (ROOT / plant.module).read_text(encoding="utf-8")
            sound[tests] = bench.try_source(plant.module, unchanged, tests, limit_s=LIMIT_S)
        if sound[tests].outcome != "survived":
            return Verdict("broken", f"without it, too: {sound[tests].by}")
        return bench.try_source(plant.module, plant.source(), tests, limit_s=LIMIT_S)

    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as file:
        for number, (plant, verdict) in enumerate(SideBySide(trial, processes=options.processes).verdicts(due), 1):
            known[plant.key] = verdict.outcome
            line = {"key": plant.key, "commit": commit, "row": plant.row, "outcome": verdict.outcome, "by": verdict.by}
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"{number}/{len(due)} {plant.row} {verdict.outcome:9} {plant.why} ({verdict.by})", flush=True)
    return report(chosen, known, stale)


def report(chosen: list[Plant], known: dict[str, str], stale: list[str]) -> int:
    """Print the table by row and what went unnoticed; 1 if anything did."""
    by_row: dict[str, list[str]] = defaultdict(list)
    for plant in chosen:
        by_row[plant.row].append(known.get(plant.key, "stale"))
    for row, outcomes in sorted(by_row.items()):
        print(f"{row}  {len(outcomes)} planted: {', '.join(outcomes)}")
    missed = [plant for plant in chosen if known.get(plant.key) not in ("killed", "timeout")]
    for plant in missed:
        print(f"NOT NOTICED  {plant.row} {plant.where}: {plant.why}")
    print(f"{len(chosen) - len(missed)} of {len(chosen)} noticed, {len(stale)} no longer apply")
    return int(bool(missed or stale))


def named_tests() -> dict[str, list[str]]:
    """For each row, the tests that its cell names."""
    cells = {**rows(ROOT / "docs/internals/acceptance.md"), **rows(ROOT / "docs/internals/features.md")}
    return {row: [name for name in REFERENCE.findall(cell) if name.startswith("tests/")] for row, cell in cells.items()}


def _problem(plant: Plant) -> str:
    try:
        plant.source()
    except LookupError as error:
        return f"STALE  {error.args[0]}"
    return ""


def _known(commit: str) -> dict[str, str]:
    if not KEPT.exists():
        return {}
    lines = map(json.loads, KEPT.read_text(encoding="utf-8").splitlines())
    known = (line for line in lines if line["commit"] == commit and line["outcome"] != "broken")
    return {line["key"]: line["outcome"] for line in known}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py soak plants", description=__doc__)
    parser.add_argument("--row", nargs="*", help="the plants of these rows only, as A08 A14")
    parser.add_argument("--again", action="store_true", help="also those whose result at this commit is known")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
