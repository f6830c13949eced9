"""The checker of repairs: what a file may leave out of its outbox when it takes another identity."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from atoma.testing.simulation.facts import Decided, Offered, Operation, Written
from atoma.testing.simulation.history import History
from atoma.testing.simulation.lineage import Moment, State
from atoma.testing.simulation.rebirth import Rebirth
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.snapshots import Identity, Pending, Place, Snapshot

ROW = Operation("replace", ("notes", "1"), {}, {}, after_mid=0, cas=False)


def told(client: bytes, mid: int, position: int, *ops: Operation) -> Written:
    """An offer from ``position`` of a lost history, or that it was the last one."""
    offered = Offered(b"lost", position, bytes([position]), last=not ops)
    return Written(client, mid, "main", b"epoch", 0, b"", bytes([position, mid]), ops, offered=offered)


def file(client: bytes, *outbox: Written) -> Snapshot:
    lying = {written.mid: Pending(written, written.mid - 9, 0, 0) for written in outbox}
    identity = Identity(client, len(lying) + 1, b"")
    return Snapshot(identity, {}, {}, lying, frozenset(), {}, {}, {}, {}, {}, 0, 0)


def everything(_now: Snapshot, _scope: str, rows: State) -> State:
    return rows


@pytest.mark.parametrize("came", [False, True], ids=["all lie there", "one has left"])
def test_that_all_has_been_offered_is_not_said_when_nobody_can_tell(tmp_path: Path, came: bool) -> None:
    offer, last = told(b"old", 1, 5, ROW), told(b"old", 2, 5)
    before = file(b"old", last) if came else file(b"old", offer, last)
    reborn = Rebirth(
        "a", History(tmp_path / "hub.db", Counter()), before, file(b"new"), {"forks": {"main": 3}}, everything
    )
    assert reborn.lets_go(last) == came
    assert not reborn.lets_go(offer), "a row is never let go"


@pytest.mark.parametrize("root", ["rejected", "observed"])
def test_what_falls_with_a_refusal_may_have_been_taken_in_a_history_that_is_gone(tmp_path: Path, root: str) -> None:
    """The device cannot send it: what it builds on is refused by the hub as it is now."""
    patch = Operation("patch", ROW.key, {}, {}, after_mid=1, cas=False)
    first, second = (
        Written(b"old", mid, "main", b"", 0, b"", bytes([mid]), (op,)) for mid, op in ((1, ROW), (2, patch))
    )
    history = History(tmp_path / "hub.db", Counter())
    history.lineage.add("main", Moment(7, b"gone", b"", {}))
    history.written = {one.name: one for one in (first, second)}
    history.verdicts[second.name].append(Decided("applied", "main", 7, second.digest, hash=b"gone"))
    replica = Replica("a", tmp_path / "a.db", history, Counter())
    replica.memory.fates[first.first_name] = root
    before, now = (
        file(b"old", second),
        replace(file(b"new"), places={"main": Place()}, inbox={(-7, ROW.key): "DEPENDENCY_REJECTED"}),
    )
    reborn = Rebirth("a", history, before, now, {}, everything)
    if root == "rejected":
        assert replica.fate(second, -7, now, reborn) == "rejected"
    else:
        with pytest.raises(Violation, match="I12"):
            replica.fate(second, -7, now, reborn)
