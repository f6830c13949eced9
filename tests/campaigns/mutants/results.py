"""What is known of each mutant, kept by mutant and commit, so that a run goes on where the last one ended."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.campaigns.mutants.catalogue import Mutant
from tests.campaigns.mutants.equivalent import EQUIVALENT
from tests.campaigns.workbench import Verdict

Z_95 = 1.959964


class Results:
    """A file with one line for each try; the last line of a mutant counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._latest: dict[str, tuple[str, Verdict]] = {}
        self._killers: dict[str, set[str]] = defaultdict(set)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                found = json.loads(line)
                verdict = Verdict(found["outcome"], found["by"], found["seconds"])
                self._latest[found["key"]] = (found["commit"], verdict)
                self._killers[found["module"]].add(verdict.by)

    def of(self, mutant: Mutant) -> tuple[str, Verdict] | None:
        """The commit at which the mutant was tried last, and what came of it."""
        return self._latest.get(mutant.key)

    def killers(self, module: str) -> frozenset[str]:
        """The tests that noticed mutants of ``module``: they look at it closely, and likely notice the next one, too."""
        return frozenset(self._killers[module])

    def keep(self, mutant: Mutant, commit: str, verdict: Verdict) -> None:
        """Write a try down, durably enough to survive an interrupted run."""
        line: dict[str, object] = {"key": mutant.key, "commit": commit, "module": mutant.module}
        line |= {"function": mutant.function, "seconds": round(verdict.seconds, 2)}
        line |= {"operator": mutant.operator, "line": mutant.line, "outcome": verdict.outcome, "by": verdict.by}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._latest[mutant.key] = (commit, verdict)
        self._killers[mutant.module].add(verdict.by)

    def due(self, mutants: Iterable[Mutant], commit: str) -> list[Mutant]:
        """Those of ``mutants`` that were never tried, or not killed at another commit: tests may have come since."""
        return [mutant for mutant in mutants if self._is_due(mutant, commit)]

    def _is_due(self, mutant: Mutant, commit: str) -> bool:
        found = self.of(mutant)
        if found is None:
            return True
        tried_at, verdict = found
        return tried_at != commit and not verdict.noticed

    def report(self, mutants: Sequence[Mutant]) -> str:
        """A table by module, the share killed with its 95 % interval, and every survivor."""
        table: dict[str, Counter[str]] = defaultdict(Counter)
        survivors: list[str] = []
        for mutant in mutants:
            found = self.of(mutant)
            outcome: str = found[1].outcome if found else "not tried"
            reason = EQUIVALENT.get(mutant.module, {}).get(mutant.key)
            if reason is not None and outcome in ("survived", "uncovered"):
                outcome = "equivalent"
            table[mutant.module][outcome] += 1
            if outcome not in ("killed", "timeout", "equivalent"):
                survivors.append(
                    f"{outcome:9} {mutant.key} {mutant.module}:{mutant.line} {mutant.function} {mutant.operator}"
                )
        lines = [f"{module:48} {dict(counts)}" for module, counts in sorted(table.items())]
        total = sum((counts for counts in table.values()), Counter[str]())
        killed = total["killed"] + total["timeout"]
        tried = sum(total.values()) - total["equivalent"] - total["not tried"] - total["broken"]
        low, high = interval(killed, tried)
        summary = f"{killed} of {tried} killed: {killed / max(tried, 1):.1%} (95 % interval {low:.1%} to {high:.1%}); {dict(total)}"
        return "\n".join([*lines, *survivors, summary])


def interval(hits: int, tries: int) -> tuple[float, float]:
    """Wilson's interval of a share at 95 %."""
    if tries == 0:
        return 0.0, 1.0
    share, square = hits / tries, Z_95**2
    middle = (share + square / (2 * tries)) / (1 + square / tries)
    half = Z_95 * math.sqrt(share * (1 - share) / tries + square / (4 * tries**2)) / (1 + square / tries)
    return max(0.0, middle - half), min(1.0, middle + half)
