"""``python -m atoma.testing.simulation --seed N``: run seeds and say what was found."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args

from atoma.testing.simulation.encounters import Kind, rarest, table
from atoma.testing.simulation.extras import Extras
from atoma.testing.simulation.report import Report, encountered, pace, scarce, total
from atoma.testing.simulation.running import simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds that the command line names; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m atoma.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds to run")
    parser.add_argument("--planted", default="", help="plant this bug first")
    parser.add_argument("--kind", choices=get_args(Kind), default="steady", help="with disasters, or without")
    for extra in fields(Extras):
        parser.add_argument(f"--{extra.name}", type=float, default=0.0, help=extra.metadata["what"])
    parser.add_argument("--drawn", action="store_true", help="let each seed draw its extras, as a campaign does")
    parser.add_argument("--verbose", action="store_true", help="show where an unexpected error came from")
    given = parser.parse_args(arguments)
    asked = Extras(**{extra.name: getattr(given, extra.name) for extra in fields(Extras)})
    say = sys.stdout.write
    reports: list[Report] = []
    for seed in range(given.seed, given.seed + given.count):
        extras = Extras.drawn(seed, given.kind) if given.drawn else asked
        report = simulate(seed, given.planted, kind=given.kind, extras=extras)
        reports.append(report)
        if report.violation is not None or given.count == 1:
            say(f"{report}\n")
        if report.violation is not None and given.verbose:
            traceback.print_exception(report.violation)
    broken = [report for report in reports if report.violation is not None]
    say(f"{len(reports)} seeds, {len(broken)} with a broken promise; last trace {reports[-1].trace}\n")
    say(f"{pace(reports)}\n\n{table(encountered(reports))}\n\nrarest: {rarest(encountered(reports))}\n\n")
    say(", ".join(f"{name} {count}" for name, count in sorted(total(reports).items())) + "\n")
    if missing := scarce(reports):
        say(f"too seldom: {missing}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
