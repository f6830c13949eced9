"""Reads that ask for the same while one of them runs: it answers them all."""

from __future__ import annotations

from collections.abc import Callable

import apsw
import trio

from atoma.contracts.execution import QueryResult
from atoma.contracts.query import BoundQuery
from atoma_stores.sqlite.database import Database


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
        answer = answer or await self._database.read_at_once(body) or await self._joined(key)
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
