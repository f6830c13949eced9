"""A window on a result of any size: the rows that a view shows and some around them, kept up to date, and how many there are.

It knows no user interface. Its host gives it a way to be called in its own place, and is told every change as an edit of a
list, so that views keep what is selected and where they are scrolled to.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, Protocol, TypeVar, cast

import msgspec

import atoma.client.client
from atoma.bindings.feeding import NEAR_ROWS, WINDOW_ROWS, Feed, WindowUpdate
from atoma.bindings.portal import Pending, Portal
from atoma.bindings.splicing import Edit, shifted
from atoma.errors import AtomaError, QueryError
from atoma.query import Rows

T = TypeVar("T")

_log = logging.getLogger("atoma.bindings")

WAITING = "…"
"""What a row shows that is not there yet."""


class Column(msgspec.Struct, Generic[T], frozen=True):
    """A column of a view.

    Attributes:
        title: What stands above it.
        cell: What a row shows there, as ``str`` gives it.
        width: How wide it is, in characters.
    """

    title: str
    cell: Callable[[T], object]
    width: int = 20

    def line(self, row: T | None) -> str:
        """What a row shows there, in one line: a character that cannot be printed is a space, and controls nothing.

        None, a row that is not there yet, shows an ellipsis.
        """
        if row is None:
            return WAITING
        text = str(self.cell(row))
        return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


class OfPortal(Protocol):
    """A client whose loop runs in a thread of its own: one of ``atoma.bindings.aio`` or ``atoma.bindings.blocking``."""

    _native: atoma.client.client.Client
    _portal: Portal


def _no_edit(edit: Edit) -> AbstractContextManager[None]:
    return nullcontext()


class Window(Generic[T]):
    """Rows of a query by their number, of which those around the ones that are shown are there.

    Memory is that of some hundred rows, however many there are. All of it is used in one place, the host's: in it,
    what is asked answers at once, and a row that is not there yet is None until it comes. How many rows there are is exact.
    The number of a row is exact near the first and the last row; elsewhere it leaves out what came and went outside of the
    window since it was there, so that what is shown does not move when others write above it.

    Args:
        client: An open client of ``atoma.bindings.aio`` or ``atoma.bindings.blocking``.
        query: Whole rows, ``select(CARDS).where(…).order_by(…)``, without limit and offset.
        post: Has a function called in the host's place, soon; called from any thread.
        key: What tells rows apart; by default their ``id``.

    Attributes:
        changed: Called in the host's place when rows or their number have changed, after all edits.
        editing: Called for each edit with it; the edit is made within the block.
        failed: Called with the error that ended it; by default it is logged.

    Raises:
        QueryError: The query has a limit or an offset.
    """

    def __init__(
        self,
        client: OfPortal,
        query: Rows[T],
        post: Callable[[Callable[[], None]], object],
        *,
        key: Callable[[T], Hashable] | None = None,
    ) -> None:
        if query.parts.limit is not None or query.parts.offset:
            raise QueryError("a window shows all rows of a query: leave limit() and offset() out")
        self.changed: Callable[[], object] = lambda: None
        self.editing: Callable[[Edit], AbstractContextManager[None]] = _no_edit
        self.failed: Callable[[AtomaError], object] = _logged
        self.key: Callable[[T], Hashable] = key or _id_of
        self._first = 0
        self._rows: Sequence[T | None] = ()
        self._total = 0
        self._marked: tuple[Hashable, int] | None = None
        self._closed = False
        portal = client._portal  # pyright: ignore[reportPrivateUsage]
        native = client._native  # pyright: ignore[reportPrivateUsage]
        me = weakref.ref(self)

        def take(update: WindowUpdate[T]) -> None:
            window = me()
            if window is not None:
                window._take(update)

        def fail(error: AtomaError) -> None:
            window = me()
            if window is not None and not window._closed:
                window.failed(error)

        self._feed = Feed(native, query, self.key, post, take, fail, portal.send_sync)
        self._portal = portal
        self._pending: Pending[None] = portal.start(self._feed.run, _nothing)
        weakref.finalize(self, self._pending.cancel)

    def __len__(self) -> int:
        """How many rows there are."""
        return self._total

    def row(self, number: int) -> T | None:
        """The row with this number, counted from 0; None when it is not there, or not yet."""
        place = number - self._first
        return self._rows[place] if 0 <= place < len(self._rows) else None

    def number_of(self, key: Hashable) -> int | None:
        """The number of the row with this key, if it is there."""
        for place, row in enumerate(self._rows):
            if row is not None and self.key(row) == key:
                return self._first + place
        return None

    def show(self, first: int, count: int) -> None:
        """Say which rows are shown; those that are not there are fetched, and the window moves with them."""
        first = max(0, min(first, self._total - count))
        wanted = range(first, min(first + count, self._total))
        if self._closed or not wanted:
            return
        middle = wanted[len(wanted) // 2]
        begin, end = self._first, self._first + len(self._rows)
        full = len(self._rows) >= WINDOW_ROWS  # else more come by themselves
        if (begin > 0 and middle - NEAR_ROWS < begin) or (full and end < self._total and middle + NEAR_ROWS > end):
            self._portal.send_sync(lambda: self._feed.aim(middle))

    @property
    def marked(self) -> int | None:
        """The number of the row that is marked, wherever it has gone; setting it marks a row that is there.

        It is followed by its key. A row that was deleted leaves the mark to the one that took its place.
        """
        return None if self._marked is None else self._marked[1]

    @marked.setter
    def marked(self, number: int | None) -> None:
        row = None if number is None else self.row(number)
        self._marked = None if row is None or number is None else (self.key(row), number)

    @property
    def marked_key(self) -> Hashable | None:
        """The key of the row that is marked."""
        return None if self._marked is None else self._marked[0]

    def close(self) -> None:
        """Stop following; the rows stay as they are. Harmless when it is done again, or when the client is closed."""
        self._closed = True
        self._pending.cancel()

    def _take(self, update: WindowUpdate[T]) -> None:
        """Make the edits of an update, one after the other."""
        if self._closed:
            return
        for edit in update.edits:
            with self.editing(edit):
                self._first, self._rows, self._total = edit.applied(self._first, self._rows, self._total)
        self._first, self._rows = update.first, update.rows
        if self._marked is not None:
            self._follow_mark(self._marked, update)
        self.changed()

    def _follow_mark(self, marked: tuple[Hashable, int], update: WindowUpdate[T]) -> None:
        key, number = marked
        found = self.number_of(key)
        if found is None:
            found = max(0, min(shifted(number, update.edits), self._total - 1))
            row = self.row(found)
            key = key if row is None else self.key(row)
        self._marked = (key, found) if self._total else None


def _logged(error: AtomaError) -> None:
    _log.error("a window shows nothing more: %s", error)


def _id_of(row: object) -> Hashable:
    return cast("Hashable", getattr(row, "id"))  # noqa: B009 - any model of a store has one


def _nothing() -> None:
    pass
