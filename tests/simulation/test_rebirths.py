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


@pytest.mark.parametrize("came", [False, True], ids=["all lie there", "one has left"])
def test_that_all_has_been_offered_is_not_said_when_nobody_can_tell(tmp_path: Path, came: bool) -> None:
    offer, last = told(b"old", 1, 5, ROW), told(b"old", 2, 5)
    before = file(b"old", last) if came else file(b"old", offer, last)
    reborn = Rebirth("a", History(tmp_path / "hub.db", Counter()), before, file(b"new"), {"forks": {"main": 3}})
    assert reborn.lets_go(last) == came
    assert not reborn.lets_go(offer), "a row is never let go"
