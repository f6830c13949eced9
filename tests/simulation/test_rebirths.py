"""The checker of repairs: what a file may leave out of its outbox when it takes another identity."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from atoma.testing.simulation.facts import Offered, Operation, Written
from atoma.testing.simulation.history import History
from atoma.testing.simulation.rebirth import Rebirth
from atoma.testing.simulation.snapshots import Identity, Pending, Snapshot

ROW = Operation("replace", ("notes", "1"), {}, {}, after_mid=0, cas=False)


def told(client: bytes, mid: int, position: int, *ops: Operation) -> Written:
    """An offer from ``position`` of a lost history, or that it was the last one."""
    offered = Offered(b"lost", position, bytes([position]), last=not ops)
    return Written(client, mid, "main", b"epoch", 0, b"", bytes([position, mid]), ops, offered=offered)


def file(client: bytes, *outbox: Written) -> Snapshot:
    lying = {written.mid: Pending(written, written.mid - 9, 0, 0) for written in outbox}
    identity = Identity(client, len(lying) + 1, b"")
    return Snapshot(identity, {}, {}, lying, {}, set(), {}, {}, {}, 0, 0)


@pytest.mark.parametrize(
    ("again", "cut", "allowed"),
    [
        ([], True, True),
        ([], False, False),
        ([told(b"new", 1, 8, ROW), told(b"new", 2, 8)], True, True),
        ([told(b"new", 1, 8, ROW)], True, False),
    ],
    ids=["what was lost is kept", "nothing was lost", "it is said of a later place", "it is offered and not said"],
)
def test_that_all_has_been_offered_goes_with_the_history_it_is_said_of(
    tmp_path: Path, again: list[Written], cut: bool, allowed: bool
) -> None:
    last = told(b"old", 2, 5)
    history = History(tmp_path / "hub.db", Counter())
    report = {"forks": {"main": 3} if cut else {}}
    reborn = Rebirth("a", history, file(b"old", told(b"old", 1, 5, ROW), last), file(b"new", *again), report)
    assert reborn.lets_go(last) == allowed
    assert not reborn.lets_go(told(b"old", 1, 5, ROW)), "a row is never let go"
