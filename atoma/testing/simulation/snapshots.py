"""What a client's file holds after a commit."""

from __future__ import annotations

from dataclasses import dataclass, field

from atoma.testing.simulation.facts import Image, Key, Written
from atoma.testing.simulation.lineage import BEGINNING, State

Shadows = dict[str, dict[Key, Image | None]]


@dataclass(frozen=True, slots=True)
class Pending:
    """A mutation in the outbox."""

    written: Written
    lsn: int
    status: int
    seq: int


@dataclass(frozen=True, slots=True)
class Place:
    """The progress of a scope's replication."""

    epoch: bytes = b""
    seq: int = 0
    hash: bytes = BEGINNING


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that the hub has lost and the device keeps for somebody to decide."""

    scope: str
    key: Key
    image: Image | None
    reason: str
    resolution: str
    fork: Place
    was: Place
    """Where the file was that had it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a file to the hub."""

    client: bytes
    next_mid: int
    tail: bytes


@dataclass(slots=True)
class Snapshot:
    """The contents of a client's file after a commit."""

    identity: Identity
    visible: dict[str, State]
    shadows: Shadows
    outbox: dict[int, Pending]
    held: frozenset[int]
    touched: dict[int, set[Key]]
    inbox: dict[tuple[int, Key], str]
    lost: dict[int, Kept]
    places: dict[str, Place]
    states: dict[str, str]
    staged: int
    repairs: int
    marks: dict[str, bytes] = field(default_factory=dict[str, bytes])
    proofs: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def by_lsn(self) -> dict[int, Pending]:
        """The outbox by local order, which a mutation keeps over all its names."""
        return {pending.lsn: pending for pending in self.outbox.values()}
