"""Reading by queries: what ``client.query(…)`` and ``store.query(…)`` do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from msgspec.structs import replace

from atoma.contracts.checks import is_a
from atoma.contracts.execution import QueryResult
from atoma.contracts.explanation import Explanation
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import ends_of, versions_of
from atoma.errors import QueryError
from atoma.ports.engine import ExplainsQueries
from atoma.ports.live import LiveBatch, LiveInspection
from atoma.ports.loops import Lifetime
from atoma.query.advice import missing_indexes
from atoma.query.binding import Asked, asked
from atoma.query.builder import Query, Rows
from atoma.query.describe import describe_whole
from atoma.query.plans import counted, number_of, reads_deleted
from atoma.query.seek import KeysetPosition
from atoma.runtime.flows import Core, MergeMode
from atoma.runtime.live import live
from atoma.runtime.observable import observe_live
from atoma.runtime.results import Edges, Page
from atoma.schema.kinds import is_unicode
from atoma.schema.schema import Schema
from atoma.schema.shapes import Bring
from atoma.schema.spec import ID_BYTES

if TYPE_CHECKING:
    from reactivex import Observable

T = TypeVar("T")

AnswerQuery: TypeAlias = Callable[[BoundQuery, str | None], Awaitable[QueryResult]]
"""Answers a query by a policy."""

COUNTS_MAX = 3
"""So often a page and its total are read until no commit was made in between."""


class Reading:
    """The questions to the stores of one client.

    Every method runs within the caller's cancel scope, and ``policy=`` chooses how it is carried out; None takes the
    policy of the store that is read first.

    Args:
        core: What the stores of the client share.
        schema: The declared stores.
        answer: Answers queries; None for the policies of the stores.
    """

    __slots__ = ("_answer", "_core", "_schema")

    def __init__(self, core: Core, schema: Schema, answer: AnswerQuery | None = None) -> None:
        self._core = core
        self._schema = schema
        self._answer: AnswerQuery = answer or self._by_policy

    def _by_policy(self, query: BoundQuery, policy: str | None) -> Awaitable[QueryResult]:
        return self._core.reads.query(query, policy)

    async def query(self, query: Query[T], policy: str | None, *, bring: Bring = False) -> Page[T]:
        """The rows of ``query``; ``query.after(page.end)`` is the next page, ``query.before(page.start)`` the one before."""
        if not bring:
            return await self._query(query, policy)
        async with self._core.brought(asked(query, self._schema).query, bring):
            return await self._query(query, policy)

    async def _query(self, query: Query[T], policy: str | None) -> Page[T]:
        found, total = asked(query, self._schema), None
        bound = found.query
        result = await self._answer(bound, policy)
        for _ in range(COUNTS_MAX if query.total else 0):
            count = await self._answer(counted(bound), policy)
            total = number_of(count)
            if count.meta.commit == result.meta.commit:
                break
            result = await self._answer(bound, policy)  # something was written in between
        return _page(found, result, total)

    async def get_all(self, query: Rows[T], policy: str | None, merge: MergeMode) -> Page[T]:
        """Every row of ``query``, a remote answer merged into the cache as ``merge`` says."""
        found = asked(query, self._schema)
        return _page(found, await self._core.reads.get_all(found.query, policy, merge), None)

    async def first(self, query: Query[T], policy: str | None) -> T | None:
        """The first row of ``query``, or None."""
        found = asked(query, self._schema)
        rows = await self._first(found, policy)
        return found.read(rows[0]) if rows else None

    async def count(self, query: Query[T], policy: str | None) -> int:
        """How many rows match (limit, offset and cursor do not apply)."""
        return number_of(await self._answer(counted(asked(query, self._schema).query), policy))

    async def exists(self, query: Query[T], policy: str | None) -> bool:
        """Whether a row matches."""
        return bool(await self._first(asked(query, self._schema), policy))

    async def _first(self, found: Asked[T], policy: str | None) -> Sequence[object]:
        bound = found.query
        return _rows(await self._answer(replace(bound, plan=replace(bound.plan, limit=1)), policy))

    async def explain(self, query: Query[T], database: object) -> Explanation:
        """What becomes of ``query``; ``database`` is this device's, which may be able to tell."""
        self._core.guard.check()
        bound = asked(query, self._schema).query
        sources = tuple(await database.explain(bound)) if isinstance(database, ExplainsQueries) else ()
        return Explanation(
            describe_whole(bound),
            sources,
            bound.plan.limit,
            self._followed(bound),
            "ok, if it lets you see rows that were deleted softly" if reads_deleted(bound.plan) else "ok",
            missing_indexes(bound.plan, sources, self._schema.store),
        )

    def _followed(self, query: BoundQuery) -> str:
        live = self._core.live
        try:
            return live.explain(query) if isinstance(live, LiveInspection) else "this database does not tell"
        except QueryError as error:
            return str(error)

    def live(self, query: Query[T], policy: str | None, *, bring: Bring) -> Lifetime[AsyncIterator[LiveBatch[T]]]:
        """Follow ``query``."""
        return live(self._core, asked(query, self._schema), policy, bring=bring)

    def observe(self, query: Query[T], policy: str | None, *, bring: Bring) -> Observable[tuple[T, ...]]:
        """A cold reactivex Observable of the whole result, again after each commit that changes it."""
        found, core = asked(query, self._schema), self._core
        open_one: Callable[[], Lifetime[AsyncIterator[LiveBatch[T]]]] = lambda: live(core, found, policy, bring=bring)  # noqa: E731
        return observe_live(open_one, core.nursery, core.guard)


def _rows(result: QueryResult) -> Sequence[object]:
    """The rows of an answer, whatever they are made of."""
    return result.rows or result.tuples


def _page(found: Asked[T], result: QueryResult, total: int | None) -> Page[T]:
    rows = _rows(result)
    ends = tuple(map(KeysetPosition, result.edges)) if result.edges else ends_of(rows)
    edges = Edges(found.query, ends) if ends else None
    return Page(found.read_all(rows), versions_of(result.rows), result.meta, total, edges)


def own(query: Rows[T], name: str) -> Rows[T]:
    """``query``, whose rows are those of the store of that name.

    Raises:
        QueryError: They are others.
    """
    if type(query) is not Rows and not is_a(query, Rows):  # the first is quick: every read comes this way
        if not is_a(query, Query):
            return query  # which will be said where it is asked
        raise QueryError(f"this is store {name!r}, and the query makes something else of its rows: ask client.query(…)")
    first = query.parts.sources[0].spec
    if first is not None and first.name != name:
        raise QueryError(f"this is store {name!r}, and the query reads {first.name!r}: ask client.query(…)")
    return query


def readable(store: str, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``ids`` that a row of ``store`` can have; no database can be sent the others.

    Raises:
        QueryError: One of them is not text.
    """
    possible = True
    for id in ids:
        if type(id) is not str and not is_a(id, str):  # the first is quick: every read comes this way
            raise QueryError(f"an id of store {store!r} is text, not {id!r}")
        possible = possible and _can_be_an_id(id)
    return ids if possible else tuple(filter(_can_be_an_id, ids))


def _can_be_an_id(text: str) -> bool:
    return len(text) <= ID_BYTES and is_unicode(text)
