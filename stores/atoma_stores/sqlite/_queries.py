"""Answers to queries: compiled once, read in one snapshot together with the commit number they are at."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import apsw
from msgspec import structs

from atoma.contracts.execution import ExecutionMeta, QueryResult
from atoma.contracts.query import QuerySpec
from atoma.query.builder import encode_cursor
from atoma_stores.sqlite._tables import StoreTable
from atoma_stores.sqlite.compile import Statement, compile_count, compile_select, total_order

COMMIT = "SELECT value FROM _atoma_meta WHERE key='commit'"
COMPILED_MAX = 256


class StoreReader:
    """Answers the queries of one store.

    Args:
        table: Its statements.
    """

    def __init__(self, table: StoreTable) -> None:
        self._table = table
        self._compiled: dict[QuerySpec, Statement] = {}

    def point(self, id: str) -> Callable[[apsw.Connection], QueryResult | None]:
        """The row ``id`` in one statement; None when there is none, because nothing then tells the commit number."""
        table = self._table

        def body(connection: apsw.Connection) -> QueryResult | None:
            raw = connection.execute(table.point, (id,)).fetchone()
            if raw is None:
                return None
            return QueryResult((table.row(raw),), None, ExecutionMeta(commit=cast("int", raw[-1])))

        return body

    def answer(self, query: QuerySpec) -> Callable[[apsw.Connection], QueryResult]:
        """Any query; to be run in one read transaction.

        Raises:
            QueryError: The query does not fit the store.
        """
        if query.count:
            return self._count(query)
        if query.ids is not None:
            return self._by_ids(query.ids)
        return self._rows(query)

    def _count(self, query: QuerySpec) -> Callable[[apsw.Connection], QueryResult]:
        statement = compile_count(self._table.spec, query)

        def body(connection: apsw.Connection) -> QueryResult:
            total: object = connection.execute(statement.sql, statement.bindings).get
            return QueryResult((), cast("int", total), _at(connection))

        return body

    def _by_ids(self, ids: Sequence[str]) -> Callable[[apsw.Connection], QueryResult]:
        table = self._table

        def body(connection: apsw.Connection) -> QueryResult:
            found = connection.executemany(table.select, ((id,) for id in ids))
            return QueryResult(tuple(map(table.row, found)), None, _at(connection))

        return body

    def _rows(self, query: QuerySpec) -> Callable[[apsw.Connection], QueryResult]:
        table = self._table
        statement = self._compile(query)
        limit = query.limit

        def body(connection: apsw.Connection) -> QueryResult:
            # row by row, so that an interrupt stops the decoding too
            rows = tuple(map(table.row, connection.execute(statement.sql, statement.bindings)))
            meta = _at(connection)
            if limit is not None and len(rows) > limit:
                rows = rows[:limit]
                if rows:
                    meta = structs.replace(meta, cursor=encode_cursor(rows[-1], total_order(query)))
            return QueryResult(rows, None, meta)

        return body

    def _compile(self, query: QuerySpec) -> Statement:
        found = self._compiled.get(query)
        if found is None:
            # one row more than asked for tells whether there is a further page
            wanted = query if query.limit is None else structs.replace(query, limit=query.limit + 1)
            found = compile_select(self._table.spec, wanted)
            if len(self._compiled) >= COMPILED_MAX:
                self._compiled.clear()
            self._compiled[query] = found
        return found


def commit_number(connection: apsw.Connection) -> int:
    """Number of the last commit that the file holds."""
    commit: object = connection.execute(COMMIT).get
    return cast("int", commit)


def _at(connection: apsw.Connection) -> ExecutionMeta:
    return ExecutionMeta(commit=commit_number(connection))
