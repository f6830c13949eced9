"""What is noted of the SQL of calls, for whoever asks: how long each batch took, and not what stood in it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

from atoma.contracts.events import SqlKind
from atoma.ports.hub_sql import NOTES, SqlNotes
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.hub.state import Run
from atoma_stores.sql.scripts import Batch, Script, resumed

T = TypeVar("T")


def noted_read(script: Callable[[], Script[T]], dialect: Dialect) -> Callable[[], Script[T]]:
    """``script``, which only reads, noted for the call that the task is at."""
    notes = NOTES.get()
    return script if notes is None else lambda: _noted(script(), [notes], "read", dialect.system, 1)


def noted_group(script: Script[T], runs: Sequence[Run], dialect: Dialect) -> Script[T]:
    """``script``, which writes ``runs`` as one group, noted for those whose callers ask."""
    asking = [run.notes for run in runs if run.notes is not None]
    return _noted(script, asking, "write", dialect.system, len(runs)) if asking else script


def _noted(script: Script[T], asking: Sequence[SqlNotes], kind: SqlKind, system: str, calls: int) -> Script[T]:
    @contextmanager
    def around(batch: Batch) -> Generator[None]:
        begins = [notes.clock() for notes in asking]
        try:
            yield
        finally:  # also what was refused, given up or lost with its connection has taken its time
            for notes, began in zip(asking, begins, strict=True):
                notes.note(kind, system, len(batch), began=began, calls=calls)

    try:
        batch = next(script)
    except StopIteration as end:
        return cast("T", end.value)
    return (yield from resumed(script, batch, around))
