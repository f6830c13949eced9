"""Answers to queries: compiled once per plan, read in one snapshot together with the commit number they are at."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias, cast

import apsw

from atoma.contracts.execution import ExecutionMeta, QueryResult
from atoma.contracts.explanation import Access
from atoma.contracts.limits import BOUNDS
from atoma.contracts.query import BoundQuery, Branch, Include, Plan, Store
from atoma.contracts.values import Scalar, StoredRow
from atoma.errors import UnknownStore
from atoma.query.bounds import check_groups
from atoma.query.normal import rebind
from atoma.query.plans import ids_of
from atoma.query.seek import cursor_of, page_of
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.include import compile_branch, is_scoped
from atoma_stores.sql.select import KEY_COLUMNS, Compiler, Statement
from atoma_stores.sqlite._tables import COMMIT, StoreTable
from atoma_stores.sqlite.explaining import accesses

PREPARED_MAX = 512
Reading: TypeAlias = Callable[[apsw.Connection], QueryResult]
Raw: TypeAlias = "tuple[Scalar, ...]"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan that was checked, as statements.

    Attributes:
        plan: The plan.
        params: How many values it is asked with.
        statement: Its rows, one beyond its limit; of the children of an include those of every parent.
        grouped: Whether its rows are groups.
        branches: The children of each include, by its branches.
    """

    plan: Plan
    params: int
    statement: Statement
    grouped: bool = False
    branches: tuple[tuple[tuple[Branch, Prepared], ...], ...] = ()


class QueryReader:
    """Answers the queries of one database.

    Args:
        tables: Its stores' statements, by name.
    """

    def __init__(self, tables: Mapping[str, StoreTable]) -> None:
        self._tables = tables
        self._prepared: dict[Plan, Prepared] = {}

    def store(self, name: str) -> StoreSpec[object]:
        """The store of that name.

        Raises:
            UnknownStore: It is not declared.
        """
        return self._table(name).spec

    def _table(self, name: str) -> StoreTable:
        found = self._tables.get(name)
        if found is None:
            raise UnknownStore(name, tuple(self._tables))
        return found

    def point(self, query: BoundQuery) -> Callable[[apsw.Connection], QueryResult | None] | None:
        """How to read the only row that ``query`` names, in one statement; None when it is no such query.

        It answers None when there is no row, because nothing then tells the commit number.
        """
        ids = ids_of(query)
        if ids is None or len(ids) != 1:
            return None
        table = self._table(query.store)

        def body(connection: apsw.Connection) -> QueryResult | None:
            raw = connection.execute(table.point, ids).fetchone()
            if raw is None:
                return None
            return QueryResult((table.row(raw),), (), ExecutionMeta(commit=cast("int", raw[-1])))

        return body

    def answer(self, query: BoundQuery) -> Reading:
        """Any query; to be run in one read transaction.

        Raises:
            QueryError: The query does not fit the schema.
            UnknownStore: It reads a store that is not declared.
        """
        prepared = self._prepared.get(query.plan)
        if prepared is None or len(query.params) != prepared.params:
            query, prepared = self._prepare(query)
        params = cast("Raw", query.params)
        bindings = prepared.statement.bindings(params)
        rows_of = self._rows_of(prepared)

        def body(connection: apsw.Connection) -> QueryResult:
            # row by row, so that an interrupt stops the decoding too
            raw = cast("Iterator[Raw]", connection.execute(prepared.statement.sql, bindings))
            if prepared.grouped:
                raw = islice(raw, BOUNDS.groups + 1)
            found, more = page_of(prepared.plan, list(map(rows_of, raw)))
            if prepared.grouped:
                check_groups(len(found))
            meta = _at(connection)
            if more and found:
                meta = ExecutionMeta(commit=meta.commit, cursor=cursor_of(query, found[-1]))
            if prepared.plan.whole_rows:
                return QueryResult(cast("tuple[StoredRow, ...]", tuple(found)), (), meta)
            if prepared.branches:
                found = self._with_children(connection, prepared, cast("Sequence[StoredRow]", found), params)
            return QueryResult((), cast("tuple[tuple[object, ...], ...]", tuple(found)), meta)

        return body

    def explained(self, query: BoundQuery) -> Callable[[apsw.Connection], tuple[Access, ...]]:
        """How ``query`` would be answered; to be run in one read transaction.

        Raises:
            QueryError: The query does not fit the schema.
            UnknownStore: It reads a store that is not declared.
        """
        query, prepared = self._prepare(query)

        def of(connection: apsw.Connection, prepared: Prepared) -> list[Access]:
            found: list[Access] = []
            for include, branches in zip(prepared.plan.include, prepared.branches, strict=True):
                for branch, below in branches:
                    most = "" if branch.query.limit is None else f" (limit {branch.query.limit} for each)"
                    found += accesses(connection, below.statement, query.params, f"include {include.name}{most}")
                    found += of(connection, below)
            return found

        def body(connection: apsw.Connection) -> tuple[Access, ...]:
            commit_number(connection)  # a plan is told by the schema as it was last read: this reads it anew
            return (*accesses(connection, prepared.statement, query.params, ""), *of(connection, prepared))

        return body

    def _prepare(self, query: BoundQuery) -> tuple[BoundQuery, Prepared]:
        bound = rebind(query, self.store)
        prepared = self._compile(bound.plan, len(bound.params), Compiler(self.store).select(bound.plan))
        if bound.plan == query.plan and len(query.params) == prepared.params:
            if len(self._prepared) >= PREPARED_MAX:
                self._prepared.clear()
            self._prepared[query.plan] = prepared
            return query, prepared
        return bound, prepared

    def _compile(self, plan: Plan, params: int, statement: Statement) -> Prepared:
        branches = [self._branches(plan, each, params) for each in plan.include]
        return Prepared(plan, params, statement, bool(plan.group), tuple(branches))

    def _branches(self, plan: Plan, include: Include, params: int) -> tuple[tuple[Branch, Prepared], ...]:
        assert isinstance(plan.source, Store)
        parent = self.store(plan.source.name)
        made: list[tuple[Branch, Prepared]] = []
        for branch in include.branches:
            statement = compile_branch(include, branch, parent, self.store)
            made.append((branch, self._compile(branch.query, params, statement)))
        return tuple(made)

    def _rows_of(self, prepared: Prepared) -> Callable[[Raw], object]:
        whole = prepared.statement.whole
        if whole is None:
            return lambda raw: raw
        readers = [self._cell(part) for part in whole]
        if len(readers) == 1:
            return readers[0][1]

        def rows(raw: Raw) -> tuple[object, ...]:
            cells: list[object] = []
            start = 0
            for width, read in readers:
                cells.append(None if raw[start] is None else read(raw[start : start + width]))
                start += width
            return tuple(cells)

        return rows

    def _cell(self, part: StoreSpec[object] | int) -> tuple[int, Callable[[Raw], object]]:
        """How many columns a part of a row has, and what becomes of them."""
        if isinstance(part, int):
            return part + 1, lambda raw: raw[1:]
        table = self._table(part.name)
        return len(KEY_COLUMNS) + len(table.columns), table.row

    def _with_children(
        self, connection: apsw.Connection, prepared: Prepared, rows: Sequence[StoredRow], params: Raw
    ) -> list[object]:
        found = [
            self._children(connection, include, branches, prepared, rows, params)
            for include, branches in zip(prepared.plan.include, prepared.branches, strict=True)
        ]
        return [(row, *(children[at] for children in found)) for at, row in enumerate(rows)]

    def _children(
        self,
        connection: apsw.Connection,
        include: Include,
        branches: Sequence[tuple[Branch, Prepared]],
        parent: Prepared,
        rows: Sequence[StoredRow],
        params: Raw,
    ) -> list[object]:
        """The children of each of ``rows``: one statement per branch."""
        assert isinstance(parent.plan.source, Store)
        above = self.store(parent.plan.source.name)
        result: list[object] = [None if include.one else ()] * len(rows)
        for branch, below in branches:
            statement = below.statement
            child = self.store(statement.sources[0])
            scoped = is_scoped(include, above, child)
            keys: dict[tuple[Scalar, ...], list[int]] = {}
            for at, row in enumerate(rows):
                key = tuple([row.column(name) for name, _ in include.keys])
                if None not in key and (not include.kind or row.column(include.kind) == branch.kind):
                    keys.setdefault((*key, row.scope) if scoped else key, []).append(at)
            table = self._table(child.name)
            bound = replace(statement, more=(json.dumps(list(keys)),)).bindings(params)
            owners: list[int] = []
            children: list[StoredRow] = []
            for owner, *raw in cast("Iterator[tuple[int, *Raw]]", connection.execute(statement.sql, bound)):
                owners.append(owner)
                children.append(table.row(tuple(raw)))
            made: list[object] = list(children)
            if below.branches:
                made = self._with_children(connection, below, children, params)
            self._attach(include, list(keys.values()), owners, made, result)
        return result

    def _attach(
        self,
        include: Include,
        places: Sequence[Sequence[int]],
        owners: Sequence[int],
        made: Sequence[object],
        result: list[object],
    ) -> None:
        by_owner: dict[int, list[object]] = {}
        for owner, each in zip(owners, made, strict=True):
            by_owner.setdefault(owner, []).append(each)
        for owner, group in by_owner.items():
            for at in places[owner]:
                result[at] = group[0] if include.one else tuple(group)


def commit_number(connection: apsw.Connection) -> int:
    """Number of the last commit that the file holds."""
    commit: object = connection.execute(COMMIT).get
    return cast("int", commit)


def _at(connection: apsw.Connection) -> ExecutionMeta:
    return ExecutionMeta(commit=commit_number(connection))
