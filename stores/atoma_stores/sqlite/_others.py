"""What other programs write to the same file: how they tell it here, and how this program tells them.

A program that commits through the engine leaves what it has changed in ``_atoma_change``, as long as another one has the file
open. Any other tool leaves the number of rows that it has written, and in which stores: triggers count them. Both take
numbers of commits, so that nothing that anybody writes goes unnoticed.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

import apsw
import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.values import StoredRow, as_image
from atoma_stores.changes import CommitDelta, StoreDelta
from atoma_stores.sql.literals import literal
from atoma_stores.sql.names import quote
from atoma_stores.sqlite._tables import StoreTable

OURS = "sqlite_compileoption_used"
"""A function that every SQLite has, and that says on the connections of this engine that they are."""
OURS_ASKED = "ATOMA"
CHANGES_KEPT = 2_000
"""Commits of which the changes are kept for the others; who is further behind reads everything again."""
CHANGE_BYTES_MAX = 16 * 1024
"""Of a commit with more bytes only the stores are kept: reading them again costs less than so many rows."""
RAW = "raw:"
"""What the facts begin with that say which commit of another tool was the last in a store."""

_STANDING = (
    "SELECT (SELECT value FROM _atoma_meta WHERE key='commit'), (SELECT value FROM _atoma_meta WHERE key='raw'), "
    "(SELECT count(*) FROM _atoma_process)"
)
_LEAVE = "INSERT INTO _atoma_change(number, stores, rows) VALUES(?,?,?)"
_FORGET = "DELETE FROM _atoma_change WHERE number <= ?"
_LEFT = "SELECT number, stores, rows FROM _atoma_change WHERE number > ? AND number <= ? ORDER BY number"
_WRITTEN = "SELECT key FROM _atoma_meta WHERE key > 'raw:' AND key < 'raw;' AND value > ?"

_Row: TypeAlias = tuple[int, int, str, dict[str, object]] | None
"""A row as it is left: version, sequence, scope, image."""
_Rows: TypeAlias = dict[str, dict[str, tuple[_Row, _Row]]]


class Standing(msgspec.Struct, frozen=True):
    """The point that a file has come to, whoever has written to it.

    Attributes:
        commit: Number of the last commit.
        raw: How many of the numbers were taken by tools that write without the engine, one for each row.
        programs: How many programs have the file open through the engine.
    """

    commit: int = 0
    raw: int = 0
    programs: int = 1


NOWHERE = Standing()
"""How far a file is that nobody has written to."""


def standing(connection: apsw.Connection) -> Standing:
    """How far the file is."""
    row = cast("tuple[int, int, int]", connection.execute(_STANDING).fetchone())
    return Standing(*row)


def call_ours(connection: apsw.Connection) -> None:
    """Let the triggers that count what other tools write know that ``connection`` is the engine's."""
    # no function in Python: it is asked for each row
    used = cast("Callable[..., bool]", frozenset({*apsw.compile_options, OURS_ASKED}).__contains__)
    connection.create_scalar_function(OURS, used, 1, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)


def trigger_names(store: str) -> Mapping[str, str]:
    """What the triggers of ``store`` are called, by what they wait for."""
    return {event: f"_atoma_raw_{store}_{event.lower()}" for event in ("INSERT", "UPDATE", "DELETE")}


def trigger_steps(store: str) -> Iterator[str]:
    """Statements that have SQLite count what tools other than the engine write to ``store``.

    A row that comes from such a tool gets a version of its own. ``REPLACE`` deletes rows without a trigger, but never
    without one of the row that takes their place.
    """
    mark = literal(RAW + store)
    version = f"UPDATE {quote(store)} SET _ver=(SELECT value FROM _atoma_meta WHERE key='version') WHERE id=NEW.id; "
    yield f"INSERT OR IGNORE INTO _atoma_meta(key, value) VALUES({mark}, 0)"
    for event, name in trigger_names(store).items():
        moved = "NEW._ver IS OLD._ver AND " if event == "UPDATE" else ""
        yield (
            f"CREATE TRIGGER {quote(name)} AFTER {event} ON {quote(store)} WHEN {moved}NOT {OURS}('{OURS_ASKED}') BEGIN "
            "UPDATE _atoma_meta SET value=value+1 WHERE key IN ('commit', 'raw', 'version'); "
            f"UPDATE _atoma_meta SET value=(SELECT value FROM _atoma_meta WHERE key='commit') WHERE key={mark}; "
            f"{'' if event == 'DELETE' else version}END"
        )


def leave(connection: apsw.Connection, number: int, changes: Mapping[str, StoreDelta]) -> None:
    """Leave for the other programs what commit ``number`` has changed, and take away what is too old for them."""
    rows = _encoded(changes)
    connection.execute(_LEAVE, (number, encode(list(changes)), rows if len(rows) <= CHANGE_BYTES_MAX else None))
    connection.execute(_FORGET, (number - CHANGES_KEPT,))


def made_by_others(
    connection: apsw.Connection, since: Standing, until: Standing, tables: Mapping[str, StoreTable]
) -> Sequence[CommitDelta]:
    """What the commits behind ``since`` up to ``until`` have changed, in order and without a gap.

    Args:
        connection: In a transaction in which the file stands at ``until`` or later.
        since: How far it was.
        until: How far it is to be told.
        tables: The stores of this program.
    """
    left = cast(
        "list[tuple[int, bytes, bytes | None]]", connection.execute(_LEFT, (since.commit, until.commit)).fetchall()
    )
    if len(left) + until.raw - since.raw != until.commit - since.commit:
        return [
            CommitDelta(until.commit, {}, before=since.commit, unknown=frozenset(tables))
        ]  # somebody has left nothing, or it is gone
    written: frozenset[str] = frozenset()
    if until.raw != since.raw:
        marks = connection.execute(_WRITTEN, (since.commit,))
        written = frozenset([str(row[0]).removeprefix(RAW) for row in marks]) & tables.keys()
    found: list[CommitDelta] = []
    before = since.commit
    told = {number: (stores, rows) for number, stores, rows in left}
    # where within these numbers a tool has written is not known: whoever looks at any of them has to read again
    for number in sorted(told.keys() | ({since.commit + 1, until.commit} if written else {until.commit})):
        stores, rows = told.get(number, (b"\x90", b"\x80"))
        changes = {} if rows is None else _decoded(rows, tables)
        # a program of an older schema does not say what stands in the columns that it does not know
        told_in_part = frozenset(decode(stores, list[str])) & tables.keys() - changes.keys()
        unknown = written | told_in_part
        found.append(CommitDelta(number, changes, before=before, unknown=unknown))
        before = number
    return found


def _told(row: StoredRow | None) -> object:
    return None if row is None else (row.version, row.seq, row.scope, row.image)


def _heard(id: str, told: _Row, table: StoreTable) -> StoredRow | None:
    if told is None:
        return None
    version, seq, scope, image = told
    return StoredRow(id, version, seq, scope, table.complete(as_image(image)))


def _is_whole(told: _Row, table: StoreTable) -> bool:
    return told is None or table.is_whole(as_image(told[3]))


def _encoded(changes: Mapping[str, StoreDelta]) -> bytes:
    return encode(
        {store: {id: (_told(old), _told(new)) for id, (old, new) in delta.items()} for store, delta in changes.items()}
    )


def _decoded(rows: bytes, tables: Mapping[str, StoreTable]) -> dict[str, StoreDelta]:
    return {
        store: {
            id: (_heard(id, old, tables[store]), _heard(id, new, tables[store])) for id, (old, new) in delta.items()
        }
        for store, delta in decode(rows, _Rows).items()
        if store in tables and all(_is_whole(row, tables[store]) for change in delta.values() for row in change)
    }
