"""What keeps a window up to date, in the loop of a client: it follows the rows around one number, and how many rows there are."""

from __future__ import annotations

import logging
from bisect import bisect_right, insort
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

import msgspec
import trio

from atoma.bindings.delivery import open_results
from atoma.bindings.splicing import Changed, Edit, Inserted, Removed, resized, spliced
from atoma.client.client import Client
from atoma.errors import AtomaError
from atoma.ports.tasks import leaves
from atoma.query import Rows, count

T = TypeVar("T")

_log = logging.getLogger("atoma.bindings")

WINDOW_ROWS = 512
"""Rows that a window holds at most."""
NEAR_ROWS = WINDOW_ROWS // 4
"""Rows that a window wants on both sides of the middle of what is shown."""
HOP_ROWS = 100_000
"""Rows that one read skips at most; see :mod:`atoma.query.bounds`."""
ANCHORS = 1024
"""Places in the order whose number is remembered, so that the way to a far row is short."""
GATHER_S = 0.01
"""How long news is gathered, in seconds, before a view is told."""


class WindowUpdate(msgspec.Struct, Generic[T], frozen=True):
    """The content of a window after one round of its feed.

    Attributes:
        edits: What has happened to the list since the one before.
        first: The number of the first row that is there.
        rows: The rows that are there.
    """

    edits: tuple[Edit, ...]
    first: int
    rows: Sequence[T]


class Feed(Generic[T]):
    """The follower of a query for one window; see :class:`atoma.bindings.window.Window`.

    One update is under way at a time: a host that is slow gets what it missed in one.

    Args:
        client: The client, in whose loop this runs.
        query: What is shown.
        key: Tells rows apart.
        post: Has a function called in the host's place; raises when there is none any more.
        take: Takes an update, in the host's place.
        fail: Takes the error that ended it, in the host's place.
        back: Has a function called in this loop.
    """

    def __init__(
        self,
        client: Client,
        query: Rows[T],
        key: Callable[[T], Hashable],
        post: Callable[[Callable[[], None]], object],
        take: Callable[[WindowUpdate[T]], None],
        fail: Callable[[AtomaError], None],
        back: Callable[[Callable[[], object]], None],
    ) -> None:
        self._client, self._query, self._key = client, query, key
        self._post, self._take, self._fail, self._back = post, take, fail, back
        self._anchors: list[tuple[int, str]] = [(0, "")]
        self._middle = 0
        self._aimed = trio.CancelScope()
        self._news = trio.Event()
        self._found: tuple[T, ...] | None = None
        self._found_first = 0
        self._found_total: int | None = None
        self._moved = True
        self._on_the_way = False
        self._first, self._total = 0, 0
        self._rows: tuple[T, ...] = ()

    def aim(self, middle: int) -> None:
        """Move to the rows around this number.

        A view asks with every repaint until they are there; while they are on their way, that changes nothing.
        """
        if self._on_the_way and abs(middle - self._middle) <= NEAR_ROWS:
            return
        self._middle, self._on_the_way = middle, True
        self._aimed.cancel()

    async def run(self) -> None:
        """Tell steps until the client is closed, or nobody is there to be told."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_total)
                nursery.start_soon(self._follow_rows)
                await self._tell()
                nursery.cancel_scope.cancel()
        except* AtomaError as group:
            self._deliver(partial(self._fail, next(error for error in leaves(group) if isinstance(error, AtomaError))))
        except* Exception:
            _log.exception("a window shows nothing more")

    async def _follow_total(self) -> None:
        total = self._query.order_by().columns(count())
        async with open_results(partial(self._client.live, total)) as results:
            async for (self._found_total,) in results:
                self._news.set()

    async def _follow_rows(self) -> None:
        while True:
            with trio.CancelScope() as self._aimed:
                first, cursor = await self._place()
                part = self._query.after(cursor).limit(WINDOW_ROWS)
                async with open_results(partial(self._client.live, part)) as results:
                    await self._follow_part(first, results)

    async def _follow_part(self, first: int, results: AsyncIterator[tuple[T, ...]]) -> None:
        begun = False
        async for rows in results:
            if not begun:
                begun, self._moved, self._found_first = True, True, first
            self._found = rows
            self._news.set()

    async def _place(self) -> tuple[int, str]:
        """Where a part begins whose middle is aimed at, as a number and as a cursor, on the shortest way."""
        wanted = max(0, self._middle - WINDOW_ROWS // 2)
        total = self._total
        at, cursor = self._anchors[bisect_right(self._anchors, wanted, key=lambda anchor: anchor[0]) - 1]
        if total - wanted < wanted - at:
            found = await self._cursor(self._query.before("").offset(min(total - wanted, HOP_ROWS)).limit(1))
            at, cursor = (max(0, total - min(total - wanted, HOP_ROWS)), found) if found else (0, "")
            while found and at > wanted:
                hop = min(at - wanted, HOP_ROWS)
                found = await self._cursor(self._query.before(cursor).offset(hop - 1).limit(1))
                at, cursor = (at - hop, found) if found else (0, "")
        while at < wanted:
            hop = min(wanted - at, HOP_ROWS)
            found = await self._cursor(self._query.after(cursor).offset(hop - 1).limit(1))
            if not found:
                break  # there are fewer by now; the end of what is found says where it is
            at, cursor = at + hop, found
        self._remember(at, cursor)
        return at, cursor

    async def _cursor(self, query: Rows[T]) -> str:
        return (await self._client.query(query)).end

    def _remember(self, at: int, cursor: str) -> None:
        if not cursor or any(found == cursor for _, found in self._anchors):
            return
        insort(self._anchors, (at, cursor))
        if len(self._anchors) > ANCHORS:
            self._anchors = [self._anchors[0], *self._anchors[1::2]]

    async def _tell(self) -> None:
        """Tell the host what is new until there is no host."""
        while True:
            await self._news.wait()
            await trio.sleep(GATHER_S)  # the rows and their number come one after the other
            self._news = trio.Event()
            if self._found is None or self._found_total is None or len(self._found) > self._found_total:
                continue  # one of the two is yet to come
            arrived, taken = self._moved, trio.Event()
            update = self._update(self._found, self._found_total)
            if update is None:
                continue
            if not self._deliver(partial(self._hand_over, update, taken)):
                return
            await taken.wait()
            if arrived:
                self._on_the_way = False

    def _hand_over(self, update: WindowUpdate[T], taken: trio.Event) -> None:
        try:
            self._take(update)
        finally:
            self._back(taken.set)

    def _deliver(self, function: Callable[[], None]) -> bool:
        try:
            self._post(function)
        except RuntimeError:  # what hosts raise whose loop has ended
            return False
        return True

    def _update(self, rows: tuple[T, ...], total: int) -> WindowUpdate[T] | None:
        """What has happened since the last update; None when nothing has."""
        edits, first = self._spliced(rows, total)
        now = self._total + sum(map(_growth, edits))
        to_first = self._begin(self._found_first if first is None else first, rows, total)
        first = to_first if first is None else first
        edits += resized(first, min(len(rows), max(0, total - to_first)), now, to_first, total)
        self._shift_anchors(to_first - first)
        first = to_first
        if not self._moved and not edits and rows == self._rows:
            return None
        if rows:
            edits.append(Changed(first, len(rows)))
        self._moved = False
        self._first, self._rows, self._total = first, rows, total
        return WindowUpdate(tuple(edits), first, rows)

    def _spliced(self, rows: tuple[T, ...], total: int) -> tuple[list[Edit], int | None]:
        """The edits among rows that are known before and after, and the number that the first of ``rows`` then has.

        None: no row is known before and after, so that nothing says it.
        """
        if not self._moved:
            behind = self._total - self._first - len(self._rows)
            to_behind = max(0, total - self._first - len(rows))
            edits = spliced(self._first, self._rows, rows, self._key, behind=behind, to_behind=to_behind)
            return edits, self._first
        before, now = [self._key(row) for row in self._rows], [self._key(row) for row in rows]
        old, new = _common(before, set(now)), _common(now, set(before))
        if not old:
            return [], None
        at = self._first + old.start
        part, to_part = self._rows[old.start : old.stop], rows[new.start : new.stop]
        return spliced(at, part, to_part, self._key, behind=0, to_behind=0), at - new.start

    def _begin(self, first: int, rows: tuple[T, ...], total: int) -> int:
        """The number of the first of ``rows``: exact where they are the first or the last there are."""
        if self._found_first == 0:
            return 0
        if len(rows) < WINDOW_ROWS:
            return max(0, total - len(rows))
        return max(1, min(first, total - len(rows)))

    def _shift_anchors(self, by: int) -> None:
        if by:
            shifted = [(max(1, at + by), cursor) for at, cursor in self._anchors if at >= self._first and cursor]
            self._anchors = [anchor for anchor in self._anchors if anchor[0] < self._first or not anchor[1]] + shifted
            self._anchors.sort()


def _common(keys: Sequence[Hashable], others: set[Hashable]) -> range:
    """From the first key that is among the others to the last one."""
    places = [place for place, key in enumerate(keys) if key in others]
    return range(places[0], places[-1] + 1) if places else range(0)


def _growth(edit: Edit) -> int:
    match edit:
        case Inserted(count=count):
            return count
        case Removed(count=count):
            return -count
        case Changed():
            return 0
