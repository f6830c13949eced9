"""I16: the one commit in which a staged snapshot takes the place of a scope, checked from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from atoma.testing.simulation.facts import difference
from atoma.testing.simulation.history import History
from atoma.testing.simulation.lineage import State
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.snapshots import Snapshot
from atoma.testing.simulation.stores import SCOPES


def swapped(before: Snapshot, now: Snapshot) -> Iterator[str]:
    """The scopes of which a snapshot was swapped in between the two."""
    for scope in SCOPES:
        if before.states.get(scope) == "tail" and now.states.get(scope) == "live":
            yield scope


def check_outbox(name: str, history: History, before: Snapshot, now: Snapshot) -> None:
    """No mutation goes that was neither taken nor told to be refused, and none is there twice.

    Raises:
        Violation: One does, or is.
    """
    left = before.by_lsn.keys() - now.by_lsn.keys()
    for lsn, written in ((lsn, before.by_lsn[lsn].written) for lsn in sorted(left)):
        told = all((lsn, key) in now.inbox for key in written.keys)
        if not told and all(verdict.rejected for verdict in history.verdicts.get(written.name, ())):
            raise Violation("I16", name, f"a snapshot came, and a mutation has gone that was not taken: {written}")
    names = Counter(pending.written.first_name for pending in now.outbox.values())
    if twice := [first for first, count in names.items() if count > 1]:
        raise Violation("I16", name, f"a snapshot came, and mutations are pending twice: {twice}")


def check_base(where: str, base: State, wanted: State, old: State) -> None:
    """What is shown beneath the outbox is the new state alone, and nothing of the one before.

    Args:
        where: Whose scope it is.
        base: What the file holds.
        wanted: The hub's state at the cursor.
        old: The state at the cursor before.

    Raises:
        Violation: It is a mixture.
    """
    differs = [key for key in base.keys() | wanted.keys() if base.get(key) != wanted.get(key)]
    if any(base.get(key) == old.get(key) for key in differs):
        raise Violation("I16", where, f"a snapshot came, and the old state is still there: {difference(base, wanted)}")
