"""What reading and writing a store gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar, cast, overload

import msgspec
from msgspec.structs import replace

from atoma.contracts.execution import (
    ExecutionMeta,
    Receipt,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    WriteState,
    WriteStatus,
    as_receipt,
    status_of,
)
from atoma.contracts.failures import refusal
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import RowImage
from atoma.errors import (
    AtomaError,
    ConflictError,
    DiskFull,
    NotFoundError,
    OutboxFull,
    ScopeNotSubscribed,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    ValidationError,
    WriteRejected,
)
from atoma.query.seek import cursor_of

if TYPE_CHECKING:
    from atoma.runtime.states import ClientLoop, WriteStates

T = TypeVar("T")


class Edges(msgspec.Struct, frozen=True):
    """The first and the last row of a page and its query, from which its cursors are made.

    Attributes:
        query: The query.
        ends: The first row, and the last one.
    """

    query: BoundQuery
    ends: Sequence[object]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in the query's order; iterates and indexes like a sequence.

    Attributes:
        items: The rows: model instances, or whatever the query makes of them.
        versions: The version of each row, for compare-and-set (``base_version=``): this device's, or below 0 if the row
            came from another machine and this device does not hold it. None if the rows are not those of one store.
        meta: How the answer came about.
        total: The number of rows on all pages, for a query ``with_total()``; counted right after the page was read,
            on a device at the same commit.
    """

    items: tuple[T, ...]
    versions: tuple[int, ...]
    meta: ExecutionMeta
    total: int | None = None
    _edges: Edges | None = field(default=None, repr=False, compare=False)

    @property
    def start(self) -> str:
        """A cursor for the first row: ``query.before(page.start)`` is the previous page; ``""`` if there is no row."""
        return "" if self._edges is None else cursor_of(self._edges.query, self._edges.ends[0])

    @property
    def end(self) -> str:
        """A cursor for the last row: ``query.after(page.end)`` is the next page; ``""`` if there is no row."""
        return "" if self._edges is None else cursor_of(self._edges.query, self._edges.ends[-1])

    @property
    def has_next(self) -> bool:
        """Whether there were rows behind this page when it was read.

        It is always true for a page fetched with ``before(cursor)``, because of the cursor's own row.
        """
        return self._goes_on(forward=True)

    @property
    def has_previous(self) -> bool:
        """Whether there were rows before this page when it was read.

        It is always true for a page fetched with ``after(cursor)``, because of the cursor's own row.
        """
        return self._goes_on(forward=False)

    def _goes_on(self, *, forward: bool) -> bool:
        if self._edges is None:
            return False
        plan = self._edges.query.plan
        if forward is not plan.backward:
            return bool(self.meta.cursor)
        return plan.offset > 0 or (plan.seek is not None and bool(plan.seek.values))

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> T:
        return self.items[index]


class WriteHandle(Generic[T]):
    """One write that is locally durable (or, if it was a direct remote write, answered by the authority).

    Attributes:
        id: The row's id.
        version: Its local version; 0 if the row is gone or the write was remote.
        changed: Whether the write changed anything.
        key: The key by which :meth:`atoma.Client.handle` finds the write, even after a restart; ``""`` if it is in no
            outbox.
    """

    __slots__ = ("_decode", "_loop", "_meta", "_receipt", "_row", "_value", "changed", "id", "key", "version")

    def __init__(
        self,
        item: WriteItemResult,
        decode: Callable[[str, RowImage], T | None],
        meta: ExecutionMeta,
        receipt: Receipt | None,
        key: str,
        loop: ClientLoop,
    ) -> None:
        self.id = item.id
        self.version = item.version
        self.changed = item.changed
        self._meta = meta
        self._row = item.row
        self._decode: Callable[[str, RowImage], T | None] | None = decode
        self._value: T | None = None
        self._receipt = receipt
        self.key = key
        self._loop = loop

    def __repr__(self) -> str:
        return f"WriteHandle(id={self.id!r}, state={self.state!r})"

    @property
    def value(self) -> T:
        """The row after the write, or None if it is gone or not known; the same object every time."""
        if self._decode is not None:
            if self._row is not None:
                self._value = self._decode(self.id, self._row)
            self._decode = None
        return cast("T", self._value)

    @property
    def meta(self) -> ExecutionMeta:
        """How the write came about; for an undecided write, how it was settled, once it has been."""
        settled = None if self._receipt is None else self._receipt.meta
        return self._meta if settled is None else settled

    @property
    def state(self) -> WriteState:
        """The state of the write now: ``local undecided queued sent accepted observed rejected dead``.

        An ``undecided`` write is in no outbox, and the machine that decides it has not answered: it is shown
        here, and taken back if that machine refuses it or cannot be asked.
        """
        if self._receipt is None:
            return "local" if self._meta.source == "local" else "accepted"
        return self._receipt.state

    @property
    def states(self) -> WriteStates:
        """The current state of the write, then each later one to the last, as an Observable and for ``async for``.

        The last state is ``observed``, ``rejected`` or ``dead``; ``local`` if nobody else decides; or ``accepted`` if
        the authority has answered the write itself. A ``dead`` write that is tried again has a new handle, found by
        its key.
        """
        from atoma.runtime.states import WriteStates

        return WriteStates(self._receipt, lambda: self.state, self._loop)

    async def accepted(self) -> int:
        """Wait until the hub has applied the write; returns its sequence at the hub.

        The sequence is 0 without a hub, and if another program on the same file has settled the write. The caller's
        cancel scope is the only timeout; cancelling does not affect the write.

        Raises:
            WriteRejected: The hub refused it; base, mine and theirs are in the inbox.
            WrongLoop: The call comes from a loop other than the client's.
        """
        return await self._wait(observed=False)

    async def observed(self) -> int:
        """As :meth:`accepted`, and wait until this device's confirmed base includes the write."""
        return await self._wait(observed=True)

    async def _wait(self, *, observed: bool) -> int:
        self._loop.guard.check_loop()
        return 0 if self._receipt is None else await self._receipt.wait(observed=observed)


def handle_of(
    result: WriteResult, index: int, decode: Callable[[str, RowImage], T | None], loop: ClientLoop
) -> WriteHandle[T]:
    """The handle of entry ``index`` of a unit, which was written."""
    receipt = as_receipt(result.receipts[index]) if result.receipts else None
    return WriteHandle(result.items[index], decode, result.meta, receipt, handle_key(result, index), loop)


def handle_key(result: WriteResult, index: int) -> str:
    """What the handle of entry ``index`` of a unit is found by later; ``""`` where nothing lies in an outbox."""
    key = result.recalled_by
    return f"{key}:{index}" if key and len(result.items) > 1 else key


@dataclass(frozen=True, slots=True)
class ItemResult(Generic[T]):
    """The result of one item of a ``_many`` call.

    Attributes:
        id: The item's id.
        handle: Its handle, or None if it was refused.
        error: Why it was refused, or None if it was written.
    """

    id: str
    handle: WriteHandle[T] | None
    error: AtomaError | None

    @property
    def ok(self) -> bool:
        """Whether it was written."""
        return self.error is None


class ItemResults(Sequence[ItemResult[T]]):
    """One result per input item, in input order; each is made when it is first looked at, and kept.

    Args:
        made: The results that are there already, None for the others.
        make: Makes the result at a place.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, made: list[ItemResult[T] | None], make: Callable[[int], ItemResult[T]]) -> None:
        self._made = made
        self._make = make

    def __len__(self) -> int:
        return len(self._made)

    @overload
    def __getitem__(self, place: int) -> ItemResult[T]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[ItemResult[T]]: ...
    def __getitem__(self, place: int | slice) -> ItemResult[T] | Sequence[ItemResult[T]]:
        places = range(len(self._made))[place]
        return self._at(places) if isinstance(places, int) else [self._at(each) for each in places]

    def _at(self, place: int) -> ItemResult[T]:
        made = self._made[place]
        if made is None:
            made = self._made[place] = self._make(place)
        return made


@dataclass(frozen=True, slots=True)
class ManyResult(Generic[T]):
    """The results of a ``_many`` call, item by item, in input order; one refused item never spoils the others.

    Attributes:
        status: ``confirmed`` (all), ``partial`` (some) or ``rejected`` (none); ``undecided`` if the call returned
            before the machine that decides had answered (an item's handle follows it).
        items: One result per input item.
        meta: How the write came about.
    """

    status: WriteStatus
    items: Sequence[ItemResult[T]]
    meta: ExecutionMeta

    def __iter__(self) -> Iterator[ItemResult[T]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def failed(self) -> Sequence[ItemResult[T]]:
        """The refused items."""
        return [item for item in self.items if not item.ok]

    def raise_for_errors(self) -> ManyResult[T]:
        """Raise the first refused item's error, or return self; an undecided item is not an error yet."""
        if self.status != "confirmed":
            for item in self.items:
                if item.error is not None:
                    raise item.error
        return self


def error_of(store: str, item: WriteItemResult) -> AtomaError:
    """The typed error of a refused item."""
    info = item.error or refusal("REJECTED", "refused without a reason")
    match info.code:
        case "CONFLICT" | "ALREADY_EXISTS":
            version = item.version or None
            return ConflictError(info.message, store=store, id=item.id, current=item.row, current_version=version)
        case "NOT_FOUND":
            return NotFoundError(store, item.id)
        case "INVALID":
            return ValidationError(info.message, store=store, field=info.info.get("field", ""))
        case "SCOPE_NOT_SUBSCRIBED":
            return ScopeNotSubscribed(info.info.get("scope", ""), ())
        case "OUTBOX_FULL":
            return OutboxFull(int(info.info.get("limit", "0")))
        case code if code in _OF_THE_ENGINE:
            return _OF_THE_ENGINE[code](info.message)
        case _:
            return WriteRejected(info.message, reason=info.code, store=store, id=item.id)


_OF_THE_ENGINE = {kind.code: kind for kind in (StoreError, StoreBusy, StoreCorrupt, DiskFull)}


class ResultMismatch(AtomaError):
    """A write port answered with results that do not fit the request; the outcome cannot be trusted."""

    code = "RESULT_MISMATCH"


def _answers(wanted: str, told: str) -> bool:
    """Whether an item is in its place; one whose id the hub has drawn is known by that alone."""
    return wanted in ("", told)


def aligned(request: WriteRequest, result: WriteResult) -> WriteResult:
    """Bring the results into entry order by their ids; refuse what does not belong to the request (A08, A23)."""
    if result.status != status_of(result.items):
        raise ResultMismatch(f"status {result.status!r} disagrees with the items ({status_of(result.items)!r})")
    if result.receipts and len(result.receipts) != len(result.items):
        raise ResultMismatch("there must be one receipt per item, or none")
    wanted = [entry.id for entry in request.entries]
    told = [item.id for item in result.items]
    if told == wanted:
        return result
    if "" in wanted and len(told) == len(wanted) and all(map(_answers, wanted, told)):
        return result
    places = {item.id: place for place, item in enumerate(result.items)}
    if len(places) != len(wanted) or len(result.items) != len(wanted) or not places.keys() >= set(wanted):
        raise ResultMismatch(f"{len(result.items)} result(s) do not match the {len(wanted)} entries of the request")
    order = [places[id] for id in wanted]
    items = tuple(result.items[place] for place in order)
    receipts = tuple(result.receipts[place] for place in order) if result.receipts else ()
    return replace(result, items=items, receipts=receipts)
