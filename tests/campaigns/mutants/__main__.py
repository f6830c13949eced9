"""The campaign: ``dev.py soak mutants``. It keeps its results under ``.mutants`` and goes on where it was ended."""

from __future__ import annotations

import argparse
import difflib
import math
import sys

from tests.campaigns.mutants.catalogue import Mutant, line_of, lines_of, modules, mutants_of, mutated, sample
from tests.campaigns.mutants.covering import Covering, measure
from tests.campaigns.mutants.results import Results
from tests.campaigns.workbench import ROOT, SideBySide, Verdict, Workbench, current_commit

KEPT = ROOT / ".mutants"


def main() -> int:
    """Try the chosen mutants and report; the exit code says whether any of them lives."""
    options = _options()
    everything = [mutant for module in modules() if options.module in module for mutant in mutants_of(module)]
    chosen = everything if options.all else sample(everything, options.sample, options.seed)
    if options.key:
        chosen = [mutant for mutant in everything if mutant.key in options.key]
    results = Results(KEPT / "results.jsonl")
    if options.show:
        print("\n".join(difference(mutant) for mutant in chosen if _lives(results, mutant)))
        return 0
    commit = current_commit()
    print(f"{len(chosen)} of {len(everything)} mutants, sample seed {options.seed}, commit {commit[:12]}", flush=True)
    due = chosen if options.again else results.due(chosen, commit)
    if due:
        covering = measure(ROOT, KEPT / commit[:12], processes=options.processes)
        try_all(due, covering, results, commit, options)
    print(results.report(chosen))
    return int(any(_lives(results, mutant) for mutant in chosen))


def try_all(due: list[Mutant], covering: Covering, results: Results, commit: str, options: argparse.Namespace) -> None:
    """Try each mutant on one of the workbenches; each result is written down as it comes."""

    def trial(bench: Workbench, mutant: Mutant) -> Verdict:
        tests = covering.tests_for(mutant, lines_of(mutant))
        alike = covering.alike(tests, f"{mutant.module} {mutant.function} {line_of(mutant)}")
        first = results.killers(mutant.module).union(alike, covering.every_line(mutant.module, tests))
        tests = covering.within(tests, options.budget, first=first)
        return bench.try_source(mutant.module, mutated(mutant), tests, limit_s=4 * covering.seconds_of(tests))

    tried = SideBySide(trial, processes=options.processes).verdicts(due)
    for number, (mutant, verdict) in enumerate(tried, 1):
        results.keep(mutant, commit, verdict)
        place = f"{mutant.module}:{mutant.line} {mutant.function} {mutant.operator}"
        print(f"{number}/{len(due)} {verdict.outcome:9} {verdict.seconds:6.1f} s  {mutant.key} {place}", flush=True)


def difference(mutant: Mutant) -> str:
    """What the mutant changes, as a diff."""
    before = (ROOT / mutant.module).read_text(encoding="utf-8").splitlines()
    changed = list(difflib.unified_diff(before, mutated(mutant).splitlines(), n=2, lineterm=""))[2:]
    return "\n".join([f"--- {mutant.key} {mutant.module}:{mutant.line} {mutant.function} {mutant.operator}", *changed])


def _lives(results: Results, mutant: Mutant) -> bool:
    found = results.of(mutant)
    return found is not None and not found[1].noticed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py soak mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="how many, drawn from every module in proportion")
    parser.add_argument("--seed", type=int, default=1, help="draws the sample")
    parser.add_argument("--all", action="store_true", help="every mutant there is")
    parser.add_argument("--module", default="", help="only modules whose path contains this")
    parser.add_argument("--key", action="append", help="this mutant only; may be given several times")
    parser.add_argument("--again", action="store_true", help="also those whose result is known")
    parser.add_argument("--show", action="store_true", help="print the difference of each that lives, and try nothing")
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="seconds of tests for a mutant, an equal share from each suite"
    )
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
