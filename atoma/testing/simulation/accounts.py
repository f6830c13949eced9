"""I21 once more, at the end: every write that was ever told durable is accounted for somewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from atoma.testing.simulation.facts import Name
from atoma.testing.simulation.history import History
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.report import Violation


def check_every_write(history: History, replicas: Iterable[Replica], gone: Collection[Name]) -> None:
    """Each was decided in some history, or is known to a device that still is, or went down with the only file.

    That an effect of a lost history comes back is seen to row by row, when a file leaves that history.

    Raises:
        Violation: One is nowhere.
    """
    decided = {written.first_name for name, written in history.written.items() if history.verdicts.get(name)}
    known = {name for replica in replicas for name in replica.memory.fates}
    for written in history.written.values():
        name = written.first_name
        if written.offered is None and name not in decided and name not in known and name not in gone:
            raise Violation("I21", "the end", f"told durable, now nowhere: {written}")
