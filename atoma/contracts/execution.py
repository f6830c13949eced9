"""Requests and results of the execution ports: neutral, frozen, bound to no protocol."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import msgspec

from atoma.contracts.completeness import COMPLETE, Completeness
from atoma.contracts.history import UndoMark
from atoma.contracts.mutations import Op
from atoma.contracts.query import BoundQuery
from atoma.contracts.values import ErrorInfo, RowImage, StoredRow
from atoma.errors import AtomaError, ExecutionError

R = TypeVar("R", bound=msgspec.Struct)

Source: TypeAlias = Literal["local", "remote", "mixed"]
StepOutcome: TypeAlias = Literal["ok", "failed", "rejected", "cancelled", "unknown", "skipped", "detached"]
Confirm: TypeAlias = Literal["optimistic", "strict"]
Durability: TypeAlias = Literal["full", "normal"]
WriteStatus: TypeAlias = Literal["confirmed", "partial", "rejected", "undecided"]
WriteState: TypeAlias = Literal["local", "undecided", "queued", "sent", "accepted", "observed", "rejected", "dead"]
"""The states of a write; an ``undecided`` one is in no outbox and has no answer."""


class OperationContext(msgspec.Struct, frozen=True):
    """The context that accompanies one request through every layer.

    Attributes:
        trace_id: One id from the caller to the hub's SQL.
        policy: Name of the policy that carries out the request; ``""`` takes the client's default.
        deadline: Absolute time on Trio's clock; ``math.inf`` if the caller set none. The kernel reads it once from the
            caller's cancel scope.
        staged: For a write: the runtime keeps this device's rows itself, so a local write node has nothing to do. The result
            then carries the answer of a remote node, if there is one.
        unread: For a query: nobody reads how the answer came about. Where no step is bound by the deadline, the kernel
            then does not look for it, unless somebody listens or a step fails: that takes longer the more scopes there are.
    """

    trace_id: str
    policy: str = ""
    deadline: float = math.inf
    staged: bool = False
    unread: bool = False


class Step(msgspec.Struct, frozen=True):
    """An entry of the trail: which node ran, how it ended, how long it took.

    Attributes:
        node: Node id, as registered.
        outcome: How it ended.
        seconds: Duration on the client's clock.
        attempt: 1 for the first attempt.
        budget_s: Seconds left until the caller's deadline when the step began; ``math.inf`` without one.
        error: Code of the error, ``""`` if it succeeded.
        note: Why this step was taken (``fallback: UNAVAILABLE``, ``breaker half-open`` …), ``""`` on the main path.
    """

    node: str
    outcome: StepOutcome
    seconds: float
    attempt: int = 1
    budget_s: float = math.inf
    error: str = ""
    note: str = ""


class ExecutionMeta(msgspec.Struct, frozen=True):
    """An account of how a result came about.

    Attributes:
        source: Where the answer comes from; ``remote`` exactly when the last node that succeeded was remote, ``mixed``
            if it has rows from both sides.
        path: The trail, in order of completion.
        trace_id: The request's trace id.
        cursor: Opaque keyset cursor of the last row of a page, ``""`` if there is no further page.
        commit: Local commit number of the answer, 0 if unknown.
        policy: Name of the policy that ran.
        completeness: For the answer to a query, whether it has every row, and if not, why. Another machine's answer is
            ``complete``.
    """

    source: Source = "local"
    path: tuple[Step, ...] = ()
    trace_id: str = ""
    cursor: str = ""
    commit: int = 0
    policy: str = ""
    completeness: Completeness = COMPLETE


class QueryRequest(msgspec.Struct, frozen=True):
    """A request for the answer to ``query``, which is checked and in normal form."""

    query: BoundQuery
    context: OperationContext

    @property
    def store(self) -> str:
        """The store that is read first; its policy carries out the query."""
        return self.query.store


class QueryResult(msgspec.Struct, frozen=True):
    """The answer to a query, in its order.

    Attributes:
        rows: The rows, for a plan of whole rows.
        tuples: For every other plan one tuple per row of the result: its columns, the rows of its sources, or a row
            and its children by the includes in order.
        meta: How the answer came about; ``meta.cursor`` is set when the query had a limit and there are further rows.
        edges: The values of the sort keys of the first and of the last row, where the rows themselves do not tell them.
    """

    rows: Sequence[StoredRow] = ()
    tuples: tuple[tuple[object, ...], ...] = ()
    meta: ExecutionMeta = ExecutionMeta()
    edges: tuple[tuple[object, ...], ...] = ()


class WriteOptions(msgspec.Struct, frozen=True):
    """The options with which a unit is written.

    Attributes:
        confirm: ``optimistic`` answers at the local commit, ``strict`` when the authority has answered.
        atomic: All entries or none, one mutation; otherwise item by item, one mutation each.
        durability: ``full`` (fsync before the answer) or ``normal``; None takes the stores' own.
        reads: Versions the unit depends on, ``(store, id, version or None for absent)``; re-checked in the
            transaction, a mismatch is a conflict (used by ``transaction()``).
    """

    confirm: Confirm = "optimistic"
    atomic: bool = False
    durability: Durability | None = None
    reads: tuple[tuple[str, str, int | None], ...] = ()


class Matches(msgspec.Struct, frozen=True):
    """The rows that a query has found and from which a unit was made.

    Attributes:
        query: The query.
        ids: The rows that it has found.
    """

    query: BoundQuery
    ids: tuple[str, ...]


class WriteRequest(msgspec.Struct, frozen=True):
    """One unit of entries.

    Attributes:
        entries: At least one; input order is kept everywhere.
        options: How to write them.
        context: Trace, policy, deadline.
        idem: Idempotency key, drawn before the first node runs and reused by every retry, fallback and outbox entry.
            Item ``n`` of a non-atomic unit has the key :func:`item_key`.
        matches: The result on which it depends: the query runs again in the transaction, and different rows are a conflict. For
            units that are written on this device.
        parts: Number of entries in each mutation of an atomic unit; ``()`` for one mutation of all of them. For units
            that are written on this device.
        mark: The undo group to which it belongs, if there is one; only this device knows it.
    """

    entries: tuple[Op, ...]
    options: WriteOptions
    context: OperationContext
    idem: str
    matches: Matches | None = None
    parts: tuple[int, ...] = ()
    mark: UndoMark | None = None


def mutation_key(request: WriteRequest, index: int) -> str:
    """Return the idempotency key of the mutation to which entry ``index`` of a unit belongs."""
    if len(request.parts) > 1:
        starts = itertools.accumulate(request.parts, initial=0)
        return f"{request.idem}:{max(start for start in starts if start <= index)}"
    return item_key(request.idem, index, atomic=request.options.atomic, size=len(request.entries))


def item_key(idem: str, index: int, *, atomic: bool, size: int) -> str:
    """Return the idempotency key of one mutation of a unit: the unit's own key if it is one mutation, else with a number."""
    return idem if atomic or size == 1 else f"{idem}:{index}"


class WriteItemResult(msgspec.Struct, frozen=True, gc=False):
    """The result of one entry.

    Attributes:
        id: The entry's id.
        ok: Whether it was written (a change that changes nothing is ok).
        changed: Whether the row is different now.
        version: Local version of the row; 0 if there is none or the write was remote.
        row: Image after the write or, if it was refused, the present one, so that the caller can merge; None if there
            is no row or it is not known.
        error: Why it was refused; None when ok.
        decided: False if it is shown here, is in no outbox, and the machine that decides it has not answered.
    """

    id: str
    ok: bool
    changed: bool = False
    version: int = 0
    row: RowImage | None = None
    error: ErrorInfo | None = None
    decided: bool = True


def restated(result: msgspec.Struct, kind: type[R], **own: object) -> R:
    """Return the result of an entry in another form: a ``kind`` with the fields that both have, and with ``own`` beside them.

    Devices and hubs keep such results and protocols send them, each with fields of its own. Nobody lists the fields
    that they share, so that a new one arrives wherever a form has it.
    """
    fields = {name: getattr(result, name) for name in _shared(type(result), kind)}
    return kind(**(fields | own))


@lru_cache(maxsize=16)
def _shared(one: type[msgspec.Struct], other: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(name for name in one.__struct_fields__ if name in other.__struct_fields__)


class WriteResult(msgspec.Struct, frozen=True):
    """The result of a unit.

    Attributes:
        status: ``undecided`` while an item is; then ``confirmed`` if all are ok, ``rejected`` if none is, ``partial`` otherwise.
        items: One per entry, same order.
        meta: How it came about.
        receipts: One per entry: follows the write to the authority; None where there is nothing to follow.
        recalled_by: Key by which the unit can be followed after a restart; ``""`` if nothing of it is in an outbox.
    """

    status: WriteStatus
    items: tuple[WriteItemResult, ...]
    meta: ExecutionMeta = ExecutionMeta()
    receipts: tuple[object, ...] = ()
    recalled_by: str = ""


class ResolveRequest(msgspec.Struct, frozen=True):
    """A question about the write with this key; the authority makes sure that its answer stays true.

    Attributes:
        idem: The key of the whole write, as in :attr:`WriteRequest.idem`.
        context: Trace, policy, deadline.
        nodes: Nodes of this client that may have passed the write on; empty for those that the policy can ask. They mean
            nothing to the authority.
    """

    idem: str
    context: OperationContext
    nodes: tuple[str, ...] = ()


class Resolution(msgspec.Struct, frozen=True):
    """The authority's final statement about the outcome of a write.

    Attributes:
        idem: The write's key.
        result: The answer that was lost, including refused items; None if the write was not applied and never will
        be: its key is fenced, and a late copy of it is refused with ``ABANDONED``.
        meta: How the answer came about.
    """

    idem: str
    result: WriteResult | None = None
    meta: ExecutionMeta = ExecutionMeta()

    @property
    def abandoned(self) -> bool:
        """Whether the write was not applied and never will be, so that the same may be written again."""
        return self.result is None


def status_of(items: tuple[WriteItemResult, ...]) -> WriteStatus:
    """Return the status that agrees with ``items``."""
    ok = 0
    for item in items:
        if not item.decided:
            return "undecided"
        ok += item.ok
    return "confirmed" if ok == len(items) else "partial" if ok else "rejected"


@runtime_checkable
class Receipt(Protocol):
    """A Protocol for following one durable write to the authority's verdict."""

    @property
    def state(self) -> WriteState:
        """The state now, without waiting."""
        ...

    @property
    def meta(self) -> ExecutionMeta | None:
        """How the write came to its end, if that adds to the write's own result; else None."""
        ...

    async def wait(self, *, observed: bool) -> int:
        """Wait for the verdict and return the hub sequence of the write.

        Args:
            observed: Also wait until the confirmed base holds the write.

        Raises:
            WriteRejected: The authority refused it.

        Cancelling the wait does not affect the write.
        """
        ...

    async def moved(self, since: WriteState) -> WriteState | None:
        """Wait until the state of the write is no longer ``since``, and return the new state; None if ``since`` is its last.

        Raises:
            ClosedError: The client was closed first.

        Cancelling the wait does not affect the write.
        """
        ...


_follows: dict[type[object], bool] = {}


def as_receipt(value: object) -> Receipt | None:
    """Return ``value`` as a receipt, or None if there is nothing to follow.

    Each class is checked once, because checking a Protocol is slow.

    Raises:
        ExecutionError: It is neither, so that a caller would wait in vain.
    """
    if value is None:
        return None
    kind = type(value)
    known = _follows.get(kind)
    if known is None:
        known = _follows[kind] = isinstance(value, Receipt)
    if not known:
        raise ExecutionError(
            f"{kind.__name__} is not a receipt: one has state, meta, wait() and moved(), or None stands in its place"
        )
    return cast("Receipt", value)


def note_path(error: AtomaError, path: Sequence[Step]) -> None:
    """Attach to ``error`` the trail that led to it."""
    error.__dict__["_path"] = tuple(path)


def path_of(error: AtomaError) -> tuple[Step, ...]:
    """Return the trail of the request that ended with ``error``; empty if no node was run."""
    return cast("tuple[Step, ...]", error.__dict__.get("_path", ()))
