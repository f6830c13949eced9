"""Reading what a file remembers of its past; what is written down is in ``_history``."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import apsw
from msgspec.structs import replace

from atoma.contracts.execution import QueryResult
from atoma.contracts.history import Changeset, PastCommit, RowChange, TurnedOver, UndoStep
from atoma.contracts.query import BoundQuery, Call
from atoma.contracts.values import Scalar
from atoma.errors import QueryError
from atoma.query.walk import every_expression, stores_of
from atoma.schema.schema import Schema
from atoma_stores.sql.dialect import PAST
from atoma_stores.sql.fence import KEY_COLUMNS
from atoma_stores.sql.names import quote
from atoma_stores.sqlite._history import FLOOR
from atoma_stores.sqlite._queries import QueryReader, commit_number
from atoma_stores.sqlite._tables import StoreTable, unpack
from atoma_stores.sqlite.connections import making_views
from atoma_stores.sqlite.database import Database
from atoma_stores.sqlite.meta import read_meta

ROWS_MAX = 10_000
"""So many rows may have changed since the commit at which the past is read."""

_LATER = "SELECT id, scope, pre, min(n) FROM _atoma_history WHERE store=? AND n>? GROUP BY id LIMIT ?"
_NEWEST = "SELECT key, label, at_ms, undone FROM _atoma_undo WHERE stack=? AND undone=? ORDER BY n {} LIMIT 1"


class FileHistory:
    """The past of an open file; implements ``LocalHistory``.

    Args:
        database: The file.
        schema: The declared stores.
        tables: Their statements, by name.
    """

    def __init__(self, database: Database, schema: Schema, tables: Mapping[str, StoreTable]) -> None:
        self._database = database
        self._schema = schema
        self._tables = tables
        self._reader = QueryReader(tables, PAST)

    async def commits(self, *, before: int | None, limit: int) -> Sequence[PastCommit]:
        """See ``LocalHistory.commits``."""

        def body(connection: apsw.Connection) -> list[PastCommit]:
            rows = connection.execute(
                "SELECT n, at_ms, rows, unit, grp FROM _atoma_history_commit WHERE ?1 IS NULL OR n<?1 ORDER BY n DESC LIMIT ?2",
                (before, limit),
            )
            return [PastCommit(*cast("tuple[int, int, int, str, str]", row)) for row in rows]

        return await self._database.read_in_pool(body)

    async def floor(self) -> int:
        """See ``LocalHistory.floor``."""
        return await self._database.read_in_pool(_floor)

    async def changes(self, commit: int) -> Changeset:
        """See ``LocalHistory.changes``."""

        def body(connection: apsw.Connection) -> Changeset:
            _check(connection, commit, begins=False)
            return self._changeset(connection, commit)

        return await self._database.read_in_pool(body)

    def _changeset(self, connection: apsw.Connection, commit: int) -> Changeset:
        at_ms: object = connection.execute("SELECT at_ms FROM _atoma_history_commit WHERE n=?", (commit,)).get
        rows = connection.execute(
            "SELECT store, id, scope, pre, post, refused FROM _atoma_history WHERE n=? ORDER BY store, id", (commit,)
        ).fetchall()
        changes = tuple(
            self._change(cast("tuple[str, str, str, bytes | None, bytes | None, str]", row)) for row in rows
        )
        return Changeset(commit, cast("int", at_ms or 0), self._schema.version, changes)

    def _change(self, row: tuple[str, str, str, bytes | None, bytes | None, str]) -> RowChange:
        store, id, scope, pre, post, refused = row
        table = self._tables.get(store)
        before, after = unpack(pre, table), unpack(post, table)
        if table is not None:
            before = None if before is None else table.complete(before)
            after = None if after is None else table.complete(after)
        return RowChange(store, id, scope, before, after, refused)

    async def read_at(self, commit: int, query: BoundQuery) -> QueryResult:
        """See ``LocalHistory.read_at``."""
        if any(isinstance(expr, Call) and expr.fn == "matches" for expr in every_expression(query.plan)):
            raise QueryError("the past has no index of words: ask without search, and look through what comes")
        answer, stores = self._reader.answer(query), sorted(set(stores_of(query.plan)))

        def body(connection: apsw.Connection) -> QueryResult:
            _check(connection, commit, begins=True)
            changed = {store: self._changed_since(connection, store, commit) for store in stores}
            if sum(map(len, changed.values())) > ROWS_MAX:
                raise QueryError(
                    f"more than {ROWS_MAX:,} rows of {', '.join(stores)} have changed since commit {commit}; ask for a later one, "
                    "or go through client.history.changes(…)"
                )
            with making_views(connection):
                for store in stores:
                    self._turn_back(connection, self._tables[store], changed[store])
            found = answer(connection)
            return replace(found, meta=replace(found.meta, commit=commit))

        return await self._database.read_in_pool(body)

    def _changed_since(self, connection: apsw.Connection, store: str, commit: int) -> list[tuple[Scalar, ...]]:
        """Rows that were changed since the commit, as they were then, in the order of the columns of their table."""
        table = self._tables[store]
        found: list[tuple[Scalar, ...]] = []
        for id, scope, pre, _ in connection.execute(_LATER, (store, commit, ROWS_MAX + 1)):
            image = unpack(pre, table)
            values = (None,) * len(table.columns) if image is None else table.values(table.complete(image))
            found.append((cast("str", id), 0, 0, cast("str", scope), *values, image is None))
        return found

    def _turn_back(self, connection: apsw.Connection, table: StoreTable, rows: list[tuple[Scalar, ...]]) -> None:
        """Put a view in the place of the store: its rows as they are, with ``rows`` as they were."""
        names = ", ".join([*KEY_COLUMNS, *map(quote, table.columns)])
        store, aside = quote(table.name), quote(f"_atoma_past_{table.name}")
        execute = connection.execute
        execute(f"CREATE TEMP TABLE {aside} AS SELECT {names}, 0 AS _gone FROM main.{store} LIMIT 0")
        places = ", ".join("?" * (len(KEY_COLUMNS) + len(table.columns) + 1))
        connection.executemany(f"INSERT INTO temp.{aside} VALUES({places})", rows)
        execute(
            f"CREATE TEMP VIEW {store} AS SELECT {names} FROM main.{store} WHERE id NOT IN (SELECT id FROM temp.{aside}) "
            f"UNION ALL SELECT {names} FROM temp.{aside} WHERE NOT _gone"
        )

    async def steps(self, stack: str) -> Sequence[UndoStep]:
        """See ``LocalHistory.steps``."""

        def body(connection: apsw.Connection) -> list[UndoStep]:
            rows = connection.execute(
                "SELECT key, label, at_ms, undone FROM _atoma_undo WHERE stack=? ORDER BY n DESC", (stack,)
            )
            return [_step(cast("tuple[str, str, int, int]", row)) for row in rows]

        return await self._database.read_in_pool(body)

    async def newest(self, stack: str, *, undone: bool) -> TurnedOver | None:
        """See ``LocalHistory.newest``."""

        def body(connection: apsw.Connection) -> TurnedOver | None:
            # what was undone last is redone first, and that is the oldest of what is undone
            row = connection.execute(_NEWEST.format("ASC" if undone else "DESC"), (stack, undone)).fetchone()
            if row is None:
                return None
            step = _step(cast("tuple[str, str, int, int]", row))
            numbers = connection.execute(
                "SELECT n FROM _atoma_history_commit WHERE grp=? ORDER BY n DESC", (step.key,)
            ).fetchall()
            return TurnedOver(step, tuple(self._changeset(connection, cast("int", number[0])) for number in numbers))

        return await self._database.read_in_pool(body)

    async def drop(self, group: str) -> None:
        """See ``LocalHistory.drop``."""

        def body(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM _atoma_undo WHERE key=?", (group,))

        await self._database.transact(body, durability="normal")


def _step(row: tuple[str, str, int, int]) -> UndoStep:
    key, label, at_ms, undone = row
    return UndoStep(key, label, at_ms, bool(undone))


def _floor(connection: apsw.Connection) -> int:
    return cast("int", read_meta(connection, FLOOR) or 0)


def _check(connection: apsw.Connection, commit: int, *, begins: bool) -> None:
    """Refuse a commit that is forgotten or still to come; the floor itself is where the past begins."""
    floor, now = _floor(connection), commit_number(connection)
    if commit > now:
        raise QueryError(f"commit {commit} has not been made: the last one is {now}")
    if commit < floor or (commit == floor and not begins):
        raise QueryError(
            f"commit {commit} is forgotten: this device remembers what came after commit {floor}; SQLiteEngine(history=History(days=…, "
            "mib=…)) says how much that is, and a snapshot or a very large commit ends it"
        )
