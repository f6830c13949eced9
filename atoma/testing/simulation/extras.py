"""What a run has beside plain writes: each extra is off unless it is asked for, so that a seed stays the run that it was."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, replace

from atoma.testing.simulation.encounters import Kind

NOT_CALM = ("minds", "lies", "disks", "downgrades", "untold")
"""What a calm run has none of."""


def _extra(what: str) -> float:
    return field(default=0.0, metadata={"what": what})


@dataclass(frozen=True, slots=True)
class Extras:
    """The extras of a run.

    Attributes:
        trades: The share of calls by which two rows exchange their unique values, which one by one they cannot take.
        minds: The share of calls after which somebody changes their mind about a write that was never sent; not in a calm
            run, in which nobody does anything but write.
        increments: The share of calls that add to counters.
        secrets: The share of calls about rows that two people alone may see, by a rule of the hub.
        parts: The share of devices that take parts of a scope, now these and now those.
        disks: How often a disk suffers something per second; not in a calm run.
        downgrades: How often per second a device's file turns out to be one of an earlier version, which has no proof of what it
            has seen; not in a calm run.
        lies: How many rows somebody offers per second that they have invented; not in a calm run.
        untold: The share of restores of which nothing tells the hub, as its lock file goes back with it; not in a calm run.
    """

    trades: float = _extra("share of calls by which rows exchange unique values")
    minds: float = _extra("share of calls after which a write is held, edited, …")
    increments: float = _extra("share of calls that add to counters")
    secrets: float = _extra("share of calls about rows that two people alone may see")
    parts: float = _extra("share of devices that take parts of a scope")
    disks: float = _extra("faults of disks per second")
    downgrades: float = _extra("files of an earlier version, without proofs, per second")
    lies: float = _extra("offers per second that somebody has invented")
    untold: float = _extra("share of restores of which nothing tells the hub")

    @property
    def options(self) -> str:
        """They as options of the command line."""
        given = ((extra.name, getattr(self, extra.name)) for extra in fields(self))
        return "".join(f" --{name} {share:g}" for name, share in given if share)

    def check(self, kind: Kind) -> None:
        """Refuse what a run of ``kind`` cannot have.

        Raises:
            ValueError: One of :data:`NOT_CALM` in a calm run.
        """
        if kind == "calm" and any(getattr(self, name) for name in NOT_CALM):
            raise ValueError(
                "in a calm run nobody changes their mind or lies, no disk fails, and no file is of an earlier version: it is about "
                "one restore of the hub, of which it is told"
            )

    @staticmethod
    def drawn(seed: int, kind: Kind) -> Extras:
        """Those that the run ``seed`` of a campaign has: some frequent, some rare, most absent.

        Files without proofs and restores of which nothing tells come apart: a device shows by its proof alone which of two
        histories of one epoch it has followed.
        """
        dice = random.Random(f"extras {seed} {kind}")
        found = Extras(
            trades=dice.choice((0.0, 0.0, 0.05, 0.4)),
            minds=dice.choice((0.0, 0.0, 0.05, 0.4)),
            increments=dice.choice((0.0, 0.1, 0.4)),
            lies=dice.choice((0.0, 0.0, 0.2, 1.0)),
            secrets=dice.choice((0.0, 0.1, 0.4)),
            parts=dice.choice((0.0, 0.5, 1.0)),
            disks=dice.choice((0.0, 0.1, 0.3)),
            downgrades=dice.choice((0.0, 0.0, 0.1, 0.3)),
            untold=dice.choice((0.0, 0.0, 0.3, 0.6)),
        )
        if found.downgrades:
            found = replace(found, untold=0.0)
        return replace(found, **dict.fromkeys(NOT_CALM, 0.0)) if kind == "calm" else found


PLAIN = Extras()
"""None of them."""
