"""Answers to queries: compiled once per plan, read in one snapshot with its commit number, shared by all who ask the same."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar, cast

import apsw
import trio

from atoma.contracts.execution import ExecutionMeta, QueryResult
from atoma.contracts.explanation import Access
from atoma.contracts.limits import BOUNDS
from atoma.contracts.query import BoundQuery, Call, Col, Plan, Store
from atoma.contracts.values import Scalar, StoredRow, is_hidden
from atoma.errors import UnknownStore
from atoma.query.bounds import check_groups
from atoma.query.normal import rebind
from atoma.query.plans import places_of_ids
from atoma.query.seek import Cursors, KeysetPosition, orders_alone, page_of
from atoma.query.walk import every_expression
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.answers import ChildReader, Prepared, cells, prepare
from atoma_stores.sql.dialect import SQLITE, Dialect
from atoma_stores.sql.fence import KEY_COLUMNS
from atoma_stores.sql.scripts import Execute, ExecuteMany, Row, Script, run_in_order
from atoma_stores.sql.select import Binder, Statement
from atoma_stores.sqlite._tables import COMMIT, StoreTable
from atoma_stores.sqlite.database import Database
from atoma_stores.sqlite.explaining import accesses

T = TypeVar("T")

PREPARED_MAX = 512
ReadTask: TypeAlias = Callable[[apsw.Connection], QueryResult]
Point: TypeAlias = Callable[[apsw.Connection], QueryResult | None]
"""Reads a row in one statement; None when there is none, because nothing then tells the commit number."""
Raw: TypeAlias = "tuple[Scalar, ...]"
RowsOf: TypeAlias = Callable[[Sequence[Raw]], Sequence[object]]


@dataclass(frozen=True, slots=True)
class KeptPlan:
    """A plan as statements, and how many values it is asked with.

    Attributes:
        prepared: The statements.
        params: The number of values.
        binder: Takes what is bound from them and from what the statement has more.
        cursors: Its cursors, where they do not depend on the values.
        rows: Makes what its rows are of what the first statement finds.
        sorted_by: Takes what they are sorted by from what it finds, where these are columns of it.
    """

    prepared: Prepared
    params: int
    binder: Binder
    cursors: Cursors | None
    rows: RowsOf
    sorted_by: Callable[[Raw], tuple[Scalar, ...]] | None


class QueryReader:
    """The reader that answers the queries of one database.

    Args:
        tables: Its stores' statements, by name.
        dialect: What its stores are called.
    """

    def __init__(self, tables: Mapping[str, StoreTable], dialect: Dialect = SQLITE) -> None:
        self._tables = tables
        self._dialect = dialect
        self._prepared: dict[Plan, KeptPlan] = {}
        self._points: dict[Plan, Callable[[tuple[object, ...]], Point | None] | None] = {}

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

    def point(self, query: BoundQuery) -> Point | None:
        """How to read the only row that ``query`` names, in one statement; None when it is not such a query.

        It answers None when there is no row, because nothing then tells the commit number.
        """
        plan = query.plan
        try:
            how = self._points[plan]
        except KeyError:
            if len(self._points) >= PREPARED_MAX:
                self._points.clear()
            how = self._points[plan] = self._point(plan)
        return None if how is None else how(query.params)

    def _point(self, plan: Plan) -> Callable[[tuple[object, ...]], Point | None] | None:
        """How the only row that ``plan`` names is read when it is asked with some values; None when it is not such a plan."""
        places = places_of_ids(plan)
        if places is None or len(places) != 1:
            return None
        at, table, source = places[0], self._table(plan.store), plan.source
        hides = table.spec.soft_delete and isinstance(source, Store) and not source.hidden
        sql, row_of = table.point, table.row

        def how(params: tuple[Any, ...]) -> Point | None:
            ids = params[at : at + 1]
            if not ids or not isinstance(ids[0], str):
                return None

            def body(connection: apsw.Connection) -> QueryResult | None:
                raw: Any = connection.execute(sql, ids).fetchone()
                if raw is None:
                    return None
                row = row_of(raw)
                if hides and is_hidden(row.image):
                    return None
                return QueryResult((row,), (), ExecutionMeta(commit=raw[-1]))

            return body

        return how

    def searches(self, query: BoundQuery) -> bool:
        """Whether an index of words takes part."""
        return any(isinstance(expr, Call) and expr.fn == "matches" for expr in every_expression(query.plan))

    def answer(self, query: BoundQuery) -> ReadTask:
        """Any query; what it reads is one snapshot, within a transaction or without.

        Raises:
            QueryError: The query does not fit the schema.
            UnknownStore: It reads a store that is not declared.
        """
        kept = self._prepared.get(query.plan)
        if kept is None or len(query.params) != kept.params:
            query, kept = self._prepare(query)
        prepared = kept.prepared
        statement, plan = prepared.statement, prepared.plan
        bindings, keys, sorted_by = kept.binder((*query.params, *statement.more)), statement.keys, kept.sorted_by

        def body(connection: apsw.Connection) -> QueryResult:
            at = connection.execute(COMMIT)  # which holds the snapshot of all that follows, until it has ended
            try:
                cursor = connection.execute(statement.sql, bindings)
                raws, more = page_of(plan, list(islice(cursor, BOUNDS.groups + 1)) if plan.group else cursor.fetchall())
                places: Sequence[Raw] = ()
                if keys:
                    raws, places = [each[:-keys] for each in raws], [each[-keys:] for each in raws]
                rows: Sequence[Any] = kept.rows(raws)
                if plan.group:
                    check_groups(len(rows))
                if prepared.branches:
                    rows = self._with_children(connection, prepared, rows, query.params)
                commit: Any = at.get
            finally:
                at.close(True)
            last = ""
            if more and rows:
                keyed = sorted_by(raws[-1]) if sorted_by else places[-1] if places else None
                last = (kept.cursors or Cursors(query)).of(rows[-1] if keyed is None else KeysetPosition(keyed))
            meta = ExecutionMeta(commit=commit, cursor=last)
            edges = (places[0], places[-1]) if places else ()
            if plan.whole_rows:
                return QueryResult(rows, (), meta, edges)
            return QueryResult((), tuple(rows), meta, edges)

        return body

    def explained(self, query: BoundQuery) -> Callable[[apsw.Connection], tuple[Access, ...]]:
        """How ``query`` would be answered; to be run in one read transaction.

        Raises:
            QueryError: The query does not fit the schema.
            UnknownStore: It reads a store that is not declared.
        """
        query, kept = self._prepare(query)
        prepared = kept.prepared

        def of(connection: apsw.Connection, prepared: Prepared) -> list[Access]:
            found: list[Access] = []
            for include, branches in zip(prepared.plan.include, prepared.branches, strict=True):
                for branch in branches:
                    limit, below = branch.branch.query.limit, branch.below
                    most = "" if limit is None else f" (limit {limit} for each)"
                    found += accesses(connection, below.statement, query.params, f"include {include.name}{most}")
                    found += of(connection, below)
            return found

        def body(connection: apsw.Connection) -> tuple[Access, ...]:
            commit_number(connection)  # a plan is told by the schema as it was last read: this reads it anew
            return (*accesses(connection, prepared.statement, query.params, ""), *of(connection, prepared))

        return body

    def _prepare(self, query: BoundQuery) -> tuple[BoundQuery, KeptPlan]:
        bound = rebind(query, self.store)
        cursors = Cursors(bound) if orders_alone(bound.plan) else None
        made = prepare(bound.plan, self.store, dialect=self._dialect, places=True)
        count, statement = len(bound.params), made.statement
        sorted_by = _sorted_by(bound.plan, statement)
        kept = KeptPlan(made, count, statement.binder(count), cursors, self._rows_of(made), sorted_by)
        if bound.plan == query.plan and len(query.params) == kept.params:
            if len(self._prepared) >= PREPARED_MAX:
                self._prepared.clear()
            self._prepared[query.plan] = kept
            return query, kept
        return bound, kept

    def _rows_of(self, prepared: Prepared) -> RowsOf:
        whole = prepared.statement.whole
        if whole is None:
            return _same
        if len(whole) == 1:
            first = whole[0]
            if isinstance(first, int):
                return lambda raws: [raw[1:] for raw in raws]
            return self._table(first.name).rows
        readers = [self._reader(part) for part in whole]

        def row(raw: Raw) -> tuple[object, ...]:
            pairs = zip(readers, cells(whole, raw), strict=True)
            return tuple([None if cell is None else read(cell) for read, cell in pairs])

        return lambda raws: list(map(row, raws))

    def _reader(self, part: StoreSpec[object] | int) -> Callable[[Raw], object]:
        """What becomes of a part of a row."""
        return _same if isinstance(part, int) else self._table(part.name).row

    def _with_children(
        self, connection: apsw.Connection, prepared: Prepared, rows: Sequence[object], params: Sequence[object]
    ) -> list[tuple[object, ...]]:
        def run(statement: Execute | ExecuteMany) -> Sequence[Row]:
            assert isinstance(statement, Execute)
            return list(cast("Iterator[Row]", connection.execute(statement.sql, cast("Raw", statement.values))))

        return run_in_order(ChildReader(self._dialect, params, self._made).added(prepared, rows), run)

    def _made(self, store: StoreSpec[object], found: Sequence[Row]) -> Script[Sequence[StoredRow]]:
        yield from ()
        return self._table(store.name).rows(found)


class _Flight:
    """A read that runs.

    Attributes:
        ended: Set when it has ended, whether it has an answer or not.
        answer: What it found.
    """

    __slots__ = ("answer", "ended")

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.answer: QueryResult | None = None


class SharedReads:
    """Reads of one database.

    What ends on the loop's thread is over before anybody else can ask for it; only reads in the pool are shared. A read joins
    another one that began at the same commit of this program, so that it sees all that its caller has written. When the read that
    runs fails or its caller goes, the first of those who wait asks anew, on its own account.

    Args:
        database: Where they are carried out.

    Attributes:
        shared: How many were answered by another one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._flights: dict[tuple[BoundQuery, int], _Flight] = {}
        self.shared = 0

    async def read(self, query: BoundQuery, commit: int, body: Callable[[apsw.Connection], QueryResult]) -> QueryResult:
        """The answer of ``body`` to ``query``, which is asked at ``commit``; see ``Database.read``.

        A caller that is cancelled has the running statement interrupted, unless others wait for it: they ask anew.
        """
        key = (query, commit)
        answer = await self._joined(key) if self._flights else None  # the common case has none, and hashes nothing
        answer = answer or await self._database.read_at_once(body, one_snapshot=True) or await self._joined(key)
        if answer is not None:
            return answer
        flight = self._flights[key] = _Flight()
        try:
            flight.answer = await self._database.read_in_pool(body)
            return flight.answer
        finally:
            del self._flights[key]
            flight.ended.set()

    async def _joined(self, key: tuple[BoundQuery, int]) -> QueryResult | None:
        """The answer of a read that runs; None once there is none, and nothing has been waited for since."""
        while (running := self._flights.get(key)) is not None:
            await running.ended.wait()
            if running.answer is not None:
                self.shared += 1
                return running.answer
        return None


def _sorted_by(plan: Plan, statement: Statement) -> Callable[[Raw], tuple[Scalar, ...]] | None:
    """What takes the sort keys of a row of one store from its columns; None where they are none of them."""
    whole = statement.whole
    if whole is None or len(whole) != 1 or isinstance(whole[0], int) or len(plan.order) < 2:
        return None
    columns = (*KEY_COLUMNS, *whole[0].value_columns)
    keys = [order.expr for order in plan.order]
    if not all(isinstance(key, Col) and key.source == 0 for key in keys):
        return None
    return itemgetter(*[columns.index(key.name) for key in keys if isinstance(key, Col)])


def _same(found: T) -> T:
    return found


def commit_number(connection: apsw.Connection) -> int:
    """Number of the last commit that the file holds."""
    commit: object = connection.execute(COMMIT).get
    return cast("int", commit)
