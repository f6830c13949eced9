"""Gets that are asked of a hub in one tick: one request answers them all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.values import StoredRow
from atoma.errors import AtomaError
from atoma.query.plans import by_ids, ids_of

GATHERED_MAX = 100
"""So many ids, of 200 bytes at most, stay within what a query may carry."""


@dataclass(slots=True, eq=False)
class _Gathering:
    """Gets that go together.

    Attributes:
        ids: What they ask for; a dictionary for its order.
        ended: Set when the request has ended, whether there is an answer or not.
        answer: What it found.
        failed: Whether the hub, or the way to it, has refused it.
    """

    ids: dict[str, None]
    ended: trio.Event = field(default_factory=trio.Event)
    answer: QueryResult | None = None
    failed: bool = False


class GatheredGets:
    """A node that gathers the gets of one tick of the loop, by store, and passes every other query on.

    The first of them waits for the others, which begin in the same tick, and asks for all. When its caller goes, one of the
    others asks anew; when the request fails, each asks for itself, so that none fails for what another has asked.

    Args:
        ask: Asks the hub.
    """

    def __init__(self, ask: Callable[[QueryRequest], Awaitable[QueryResult]]) -> None:
        self._ask = ask
        self._open: dict[str, _Gathering] = {}

    async def query(self, request: QueryRequest) -> QueryResult:
        """The answer to ``request``; raises what asking raises, and cancelling takes nobody else along."""
        ids = ids_of(request.query)
        if ids is None or len(ids) != 1:
            return await self._ask(request)
        id, store = ids[0], request.store
        while (gathering := self._open.get(store)) is not None:
            gathering.ids[id] = None
            if len(gathering.ids) >= GATHERED_MAX:
                del self._open[store]
            await gathering.ended.wait()
            if gathering.answer is not None:
                return _of(id, gathering.answer)
            if gathering.failed:
                return await self._ask(request)
        gathering = self._open[store] = _Gathering({id: None})
        try:
            await trio.lowlevel.checkpoint()
            self._close(store, gathering)
            if len(gathering.ids) == 1:
                gathering.answer = await self._ask(request)
            else:
                gathering.answer = await self._ask(replace(request, query=by_ids(store, tuple(gathering.ids))))
            return _of(id, gathering.answer)
        except AtomaError:
            gathering.failed = True
            if len(gathering.ids) == 1:
                raise
        finally:
            self._close(store, gathering)
            gathering.ended.set()
        return await self._ask(request)

    def _close(self, store: str, gathering: _Gathering) -> None:
        """Let no more gets into ``gathering``."""
        if self._open.get(store) is gathering:
            del self._open[store]


def _of(id: str, answer: QueryResult) -> QueryResult:
    rows: tuple[StoredRow, ...] = tuple([row for row in answer.rows if row.id == id])
    return replace(answer, rows=rows)
