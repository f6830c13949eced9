"""What a simulated run tells: the first broken promise, or what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from atoma.testing.simulation.encounters import Fault, Kind, Pair
from atoma.testing.simulation.extras import PLAIN, Extras


class Violation(Exception):
    """A promise of the system did not hold.

    Attributes:
        invariant: Its id, ``I1`` to ``I28``; that of a feature, such as ``F09``; or a word: ``verdict`` for a decision that the rules
            do not allow, ``live`` for a live query that does not show the rows.
        where: Which file or which call.
        what: What was found and what should have been there.
    """

    def __init__(self, invariant: str, where: str, what: str) -> None:
        super().__init__(f"{invariant} at {where}: {what}")
        self.invariant = invariant
        self.where = where
        self.what = what


@dataclass(frozen=True, slots=True)
class Report:
    """One seed's run.

    Attributes:
        seed: The seed.
        planted: Name of the planted bug, ``""`` for the product as it is.
        violation: The first broken promise, None when all held.
        counts: How often what happened.
        trace: Hash over every task step, frame and commit; equal for equal seeds.
        virtual_s: Virtual seconds that passed.
        wall_s: Real seconds that it took.
        met: How often each kind of fault struck a device in each state.
        kind: What the run was about.
        extras: What it had beside plain writes.
    """

    seed: int
    planted: str
    violation: Violation | None
    counts: Counter[str] = field(default_factory=Counter[str])
    trace: str = ""
    virtual_s: float = 0.0
    wall_s: float = 0.0
    met: Counter[Pair] = field(default_factory=Counter[Pair])
    kind: Kind = "steady"
    extras: Extras = PLAIN

    @property
    def command(self) -> str:
        """The one command that runs it again."""
        bug = f" --planted {self.planted}" if self.planted else ""
        kind = "" if self.kind == "steady" else f" --kind {self.kind}"
        return f"python -m atoma.testing.simulation --seed {self.seed}{kind}{self.extras.options}{bug}"

    def __str__(self) -> str:
        found = "every promise held" if self.violation is None else str(self.violation)
        bug = f" ({self.planted})" if self.planted else ""
        return f"seed {self.seed}{bug}: {found}; {pace([self])}; replay: {self.command}"


# A campaign in which one of these stays below its share has tested less than it says.
SCARCE_PER_SEED: dict[str, float] = {
    "mutations": 40,
    "hub transactions": 20,
    "conflicts lww": 0.5,
    "conflicts server_wins": 0.2,
    "conflicts client_wins": 0.2,
    "conflicts manual": 0.2,
    "rejected": 2,
    "dependants rejected": 0.05,
    "unique refused": 0.05,
    "duplicates": 0.2,
    Fault.CLIENT_CRASH.value: 0.5,
    Fault.HUB_CRASH.value: 0.3,
    Fault.DROPPED.value: 1,
    Fault.DOUBLED.value: 1,
    Fault.REORDERED.value: 0.5,
    Fault.TRUNCATED.value: 0.05,
    Fault.BROKEN.value: 0.5,
    Fault.CUT.value: 0.3,
    Fault.SILENT.value: 0.3,
    Fault.ONE_WAY.value: 0.3,
    Fault.CLIENT_CLOCK.value: 0.3,
    Fault.HUB_CLOCK.value: 0.3,
    Fault.COMPACTION.value: 0.3,
    Fault.EPOCH.value: 0.05,
    Fault.SPLIT.value: 0.1,
    Fault.CANCELLED.value: 0.3,
    "snapshots": 0.3,
    "inbox resolved": 0.3,
    "rebases": 1,
    "gaps refused": 0.1,
    "atomic units": 2,
}

SCARCE_PER_RESTORED_SEED: dict[str, float] = {
    Fault.HUB_RESTORED.value: 0.5,
    "hub restores found out": 0.1,
    "hub restores told, offer": 0.1,
    "hub restores told, ask": 0.02,
    "hub restores told, forget": 0.01,
    Fault.FILE_RESTORED.value: 0.4,
    Fault.CLONED.value: 0.3,
    Fault.EXPIRED.value: 0.5,
    "repairs HUB_LOST_DATA": 0.3,
    "repairs CLIENT_FORKED": 0.2,
    "repairs CLIENT_EXPIRED": 0.3,
    "offers applied": 0.3,
    "offers superseded": 0.2,
    "offers rejected": 0.2,
    "outcomes unknown": 0.5,
    "lost resolved": 0.02,
}
"""The same for the runs that have disasters, of which it takes many for chance to even out."""
MANY = 100


def total(reports: list[Report]) -> Counter[str]:
    """The counts of several runs together."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.counts)
    return counts


def encountered(reports: Sequence[Report]) -> Counter[Pair]:
    """How often each kind of fault struck a device in each state, in several runs together."""
    met: Counter[Pair] = Counter()
    for report in reports:
        met.update(report.met)
    return met


def pace(reports: Sequence[Report]) -> str:
    """How much time was simulated, in how much."""
    virtual_s, wall_s = (sum(times) for times in zip(*((r.virtual_s, r.wall_s) for r in reports), strict=True))
    faster = f", {virtual_s / wall_s:.0f} times as fast" if wall_s else ""
    return f"{virtual_s:.0f} s simulated in {wall_s:.1f} s{faster}"


def scarce(reports: list[Report]) -> dict[str, int]:
    """What happened too seldom for its absence of violations to mean anything."""
    restored = [report for report in reports if report.kind == "restored"]
    restored = restored if len(restored) >= MANY else []
    return {
        name: count
        for of_kind, shares in ((reports, SCARCE_PER_SEED), (restored, SCARCE_PER_RESTORED_SEED))
        for name, share in shares.items()
        if (count := total(of_kind)[name]) < share * len(of_kind)
    }
