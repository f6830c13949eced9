"""What a file remembers of its past: the images of rows before and after each commit, back to a floor.

What is above the floor is complete: with the images from before each later commit, the visible rows of any commit from the
floor on can be told. Where that cannot be kept up, the floor rises and everything below it goes.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import apsw

from atoma.contracts.execution import WriteRequest
from atoma.contracts.history import UndoMark
from atoma.contracts.values import RowKey
from atoma.errors import ConfigurationError
from atoma_stores.changes import StoreDelta
from atoma_stores.sqlite._tables import StoreTable, pack
from atoma_stores.sqlite.meta import read_meta, write_meta

ROWS_MAX = 2_000
"""A commit that changes more rows is not remembered: what came before it is forgotten."""
STEPS_MAX = 100
"""So many groups are kept on a stack."""
ROW_BYTES = 64
"""What a row of history takes beside its images."""
SLACK = 1.25
"""How far a history may outgrow its size before the commit that sees it trims it itself."""
DAY_MS = 86_400_000
FLOOR, LAST = "history_floor", "history_last"
HISTORY_TABLES = (
    # total = the sizes of all commits so far, this one's included, those that are forgotten too
    "CREATE TABLE IF NOT EXISTS _atoma_history_commit(n INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, unit TEXT NOT NULL, "
    "grp TEXT NOT NULL, rows INTEGER NOT NULL, size INTEGER NOT NULL, total INTEGER NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS _atoma_history_unit ON _atoma_history_commit(unit) WHERE unit<>''",
    "CREATE INDEX IF NOT EXISTS _atoma_history_grp ON _atoma_history_commit(grp) WHERE grp<>''",
    # the visible row before and after the commit, NULL where there is none
    "CREATE TABLE IF NOT EXISTS _atoma_history(store TEXT NOT NULL, id TEXT NOT NULL, n INTEGER NOT NULL, "
    "scope TEXT NOT NULL, pre BLOB, post BLOB, refused TEXT NOT NULL DEFAULT '', PRIMARY KEY(store, id, n)) "
    "STRICT, WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS _atoma_history_n ON _atoma_history(n)",
    # groups of writes that can be undone, or redone; began = the first commit of what has to be taken back
    "CREATE TABLE IF NOT EXISTS _atoma_undo(n INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, "
    "stack TEXT NOT NULL, label TEXT NOT NULL, at_ms INTEGER NOT NULL, began INTEGER NOT NULL, undone INTEGER NOT NULL "
    "DEFAULT 0) STRICT",
    "CREATE INDEX IF NOT EXISTS _atoma_undo_stack ON _atoma_undo(stack, n)",
)


@dataclass(frozen=True, slots=True)
class History:
    """The bounds of the past that a device remembers; what is older, or more, is forgotten.

    Attributes:
        days: For so many days.
        mib: In so many MiB of images.

    Raises:
        ConfigurationError: Either is not above 0.
    """

    days: float = 30
    mib: float = 64

    def __post_init__(self) -> None:
        if not (self.days > 0 and self.mib > 0):
            raise ConfigurationError(f"a history holds days and MiB above 0, not {self.days} and {self.mib}")

    @property
    def size(self) -> int:
        """Bytes of images that are kept."""
        return int(self.mib * 1024 * 1024)


class HistoryRecorder:
    """A recorder of what one transaction does to visible rows; made for each one of a file that keeps its history.

    Args:
        connection: Where the transaction is open.
        tables: The stores.
        wall_ms: Wall clock.
        history: How much is kept.

    Attributes:
        unit: The unit that the transaction carries out, None for work of replication.
        swapped: Whether it has put a snapshot in the place of what was there.
    """

    __slots__ = ("_connection", "_forgotten", "_history", "_left", "_tables", "_wall_ms", "swapped", "unit")

    def __init__(
        self,
        connection: apsw.Connection,
        tables: Mapping[str, StoreTable],
        wall_ms: Callable[[], int],
        history: History,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._wall_ms = wall_ms
        self._history = history
        self._forgotten: set[RowKey] = set()
        self._left: set[tuple[str, str]] = set()
        self.unit: WriteRequest | None = None
        self.swapped = False

    def forget(self, rows: Iterable[RowKey]) -> None:
        """Forget every image of ``rows``, and what this transaction does to them; they were never here."""
        gone = list(rows)
        self._forgotten.update(gone)
        self._connection.executemany("DELETE FROM _atoma_history WHERE store=? AND id=?", gone)

    def leave(self, store: str, scope: str) -> None:
        """Forget every image of rows of ``store`` in ``scope``, and what this transaction does to them: they leave the device."""
        self._left.add((store, scope))
        self._connection.execute("DELETE FROM _atoma_history WHERE store=? AND scope=?", (store, scope))

    def refuse(self, key: str, rows: Iterable[RowKey], reason: str) -> None:
        """Note that the authority, or this device, has taken back what the mutation ``key`` did to ``rows``."""
        unit = key.rpartition(":")[0]
        self._connection.executemany(
            "UPDATE _atoma_history SET refused=? WHERE store=? AND id=? AND n IN "
            "(SELECT n FROM _atoma_history_commit WHERE unit IN (?, ?) AND unit<>'')",
            [(reason, store, id, key, unit) for store, id in rows],
        )

    def record(self, number: int, changes: Mapping[str, StoreDelta]) -> None:
        """Remember the commit ``number``, or forget everything before it when it cannot be remembered."""
        connection = self._connection
        last = read_meta(connection, LAST)
        if last != number - 1:  # another program has committed, which keeps no history
            raise_floor(connection, number - 1)
        write_meta(connection, LAST, number)
        images = list(self._images(number, changes))
        mark = None if self.unit is None else self.unit.mark
        if self.swapped or len(images) > ROWS_MAX:
            raise_floor(connection, number)
        elif images:
            size = sum(ROW_BYTES + len(image[4] or b"") + len(image[5] or b"") for image in images)
            total, kept = _sizes(connection)
            connection.executemany(
                "INSERT INTO _atoma_history(store, id, n, scope, pre, post) VALUES(?,?,?,?,?,?)", images
            )
            now_ms = self._wall_ms()
            unit = "" if self.unit is None else self.unit.idem
            connection.execute(
                "INSERT INTO _atoma_history_commit(n, at_ms, unit, grp, rows, size, total) VALUES(?,?,?,?,?,?,?)",
                (number, now_ms, unit, mark.group if mark else "", len(images), size, total + size),
            )
            if mark is not None:
                _group(connection, mark, number, now_ms)
            if kept + size > SLACK * self._history.size:  # nobody else trims a file that is never checkpointed
                trim(connection, self._history, now_ms)

    def _images(
        self, number: int, changes: Mapping[str, StoreDelta]
    ) -> Iterable[tuple[str, str, int, str, bytes | None, bytes | None]]:
        for store, delta in changes.items():
            table = self._tables[store]
            for id, (old, new) in delta.items():
                if (store, id) in self._forgotten or (old is not None and new is not None and old.image == new.image):
                    continue
                row = old or new
                assert row is not None, "a change has a row on one side"
                if (store, row.scope) in self._left:
                    continue
                pre, post = None if old is None else old.image, None if new is None else new.image
                yield store, id, number, row.scope, pack(pre, table), pack(post, table)


class NoRecorder:
    """The empty recorder of a file that keeps no history."""

    __slots__ = ()

    def forget(self, rows: Iterable[RowKey]) -> None:
        """Nothing of them is remembered."""


NOTHING_RECORDED = NoRecorder()


def _group(connection: apsw.Connection, mark: UndoMark, number: int, now_ms: int) -> None:
    """Put the commit ``number`` into its group: as one more of it, or in the place of what it has done so far."""
    if mark.turn != "do":
        connection.execute("UPDATE _atoma_history_commit SET grp='' WHERE grp=? AND n<>?", (mark.group, number))
        connection.execute(
            "UPDATE _atoma_undo SET undone=?, began=? WHERE key=?", (mark.turn == "undo", number, mark.group)
        )
        return
    connection.execute(
        "INSERT INTO _atoma_undo(key, stack, label, at_ms, began) VALUES(?,?,?,?,?) ON CONFLICT(key) DO NOTHING",
        (mark.group, mark.stack, mark.label, now_ms, number),
    )
    connection.execute("DELETE FROM _atoma_undo WHERE stack=? AND undone", (mark.stack,))
    connection.execute(
        "DELETE FROM _atoma_undo WHERE stack=?1 AND n <= "
        "(SELECT n FROM _atoma_undo WHERE stack=?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)",
        (mark.stack, STEPS_MAX),
    )


def raise_floor(connection: apsw.Connection, number: int) -> None:
    """Forget everything up to the commit ``number``, and the groups that began there."""
    write_meta(connection, FLOOR, number)
    connection.execute("DELETE FROM _atoma_history WHERE n<=?", (number,))
    connection.execute("DELETE FROM _atoma_history_commit WHERE n<=?", (number,))
    connection.execute("DELETE FROM _atoma_undo WHERE began<=?", (number,))


def trim(connection: apsw.Connection, history: History, now_ms: int) -> None:
    """Forget what is too old, and the oldest of what is too much; inside the caller's write transaction."""
    since: object = connection.execute(
        "SELECT coalesce((SELECT min(n) - 1 FROM _atoma_history_commit WHERE at_ms>=?), "
        "(SELECT max(n) FROM _atoma_history_commit))",
        (now_ms - int(history.days * DAY_MS),),
    ).get
    beyond: object = connection.execute(
        "SELECT max(n) FROM _atoma_history_commit WHERE total - size < ?", (_sizes(connection)[0] - history.size,)
    ).get
    first: object = connection.execute("SELECT min(n) FROM _atoma_history_commit").get
    floor = max(cast("int", since or 0), cast("int", beyond or 0))
    if first is not None and floor >= cast("int", first):
        raise_floor(connection, floor)


def trim_aside(connection: apsw.Connection, history: History, now_ms: int) -> None:
    """:func:`trim` in a transaction of its own, if it would do anything; left for the next time while somebody writes."""
    with contextlib.suppress(apsw.BusyError, apsw.LockedError):
        if _is_due(connection, history, now_ms):
            with connection:
                trim(connection, history, now_ms)


def _is_due(connection: apsw.Connection, history: History, now_ms: int) -> bool:
    """Whether :func:`trim` would forget anything."""
    oldest: object = connection.execute("SELECT at_ms FROM _atoma_history_commit ORDER BY n LIMIT 1").get
    return oldest is not None and (
        _sizes(connection)[1] > history.size or cast("int", oldest) < now_ms - int(history.days * DAY_MS)
    )


def _sizes(connection: apsw.Connection) -> tuple[int, int]:
    """Bytes of every commit that was ever remembered, and of those that still are."""
    found = connection.execute(
        "SELECT (SELECT total FROM _atoma_history_commit ORDER BY n DESC LIMIT 1), "
        "(SELECT total - size FROM _atoma_history_commit ORDER BY n LIMIT 1)"
    ).fetchall()
    total, gone = cast("tuple[int | None, int | None]", found[0])
    return total or 0, (total or 0) - (gone or 0)


def prepare_history(connection: apsw.Connection, history: History | None, now_ms: int) -> None:
    """Begin, go on with, or end the history of a file, inside the transaction that opens it.

    A file that is opened without one forgets what it had: nobody would keep it up.
    """
    if history is None:
        if read_meta(connection, FLOOR) is not None:
            raise_floor(connection, _commit(connection))
            connection.execute("DELETE FROM _atoma_meta WHERE key IN (?, ?)", (FLOOR, LAST))
        return
    now = _commit(connection)
    if read_meta(connection, LAST) != now:
        raise_floor(connection, now)
        write_meta(connection, LAST, now)
    trim(connection, history, now_ms)


def _commit(connection: apsw.Connection) -> int:
    return cast("int", read_meta(connection, "commit"))
