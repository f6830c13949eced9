"""The transaction as the engine makes it, and one unit of a write in it: stages, the answer, and the same answer again."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import apsw
import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import WriteItemResult, WriteRequest, item_key
from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Effect, PendingMutation
from atoma.contracts.values import ErrorInfo
from atoma.ports.execution import Staging
from atoma.schema.spec import Schema
from atoma_stores.changes import StoreDelta
from atoma_stores.sqlite._base import ConfirmedRows
from atoma_stores.sqlite._inbox import Inbox
from atoma_stores.sqlite._outbox import Outbox, OutboxLimits, Settlement
from atoma_stores.sqlite._receipts import Whereabouts
from atoma_stores.sqlite._rows import Known, TxState, VisibleRows
from atoma_stores.sqlite._scopes import Scopes
from atoma_stores.sqlite._tables import StoreTable

UNITS_KEPT = 10_000


class _Item(msgspec.Struct, frozen=True, array_like=True):
    """One item of a kept answer; ``lsn`` 0 when nothing was enqueued for it, ``id`` ``""`` when an older version kept it."""

    ok: bool
    changed: bool
    version: int
    error: ErrorInfo | None
    lsn: int
    mid: int
    id: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a transaction leaves to be told after COMMIT.

    Attributes:
        commit: Its number, 0 when it wrote nothing.
        changes: Net change of the visible rows.
        settlements: What receipts have to hear.
        value: What its body returned.
    """

    commit: int
    changes: dict[str, StoreDelta]
    settlements: Sequence[Settlement]
    value: object


@dataclass(frozen=True, slots=True)
class UnitAnswer:
    """What became of a unit.

    Attributes:
        items: One per entry.
        mutations: ``(lsn, mid)`` per entry, None where nothing was enqueued.
        known: For a repeat: the mutations that are still pending, by lsn.
        rejected: For a repeat: why the hub refused mutations that lie in the inbox, by lsn.
        repeat: Whether the unit had been committed before.
    """

    items: tuple[WriteItemResult, ...]
    mutations: tuple[tuple[int, int] | None, ...]
    known: Mapping[int, PendingMutation] = field(default_factory=dict)
    rejected: Mapping[int, ErrorInfo] = field(default_factory=dict)
    repeat: bool = False


class Refused(Exception):
    """An atomic unit has a refused item: its savepoint has to go."""

    def __init__(self, items: tuple[WriteItemResult, ...]) -> None:
        super().__init__("refused")
        self.items = items


class Unit:
    """What the stages of one unit tell one another and their caller; see ``UnitPart``.

    Attributes:
        effects: What entries did, in entry order.
        effects_wanted: Whether another stage follows that may look at the effects.
        reports: Results by the index of their entry.
    """

    __slots__ = ("effects", "effects_wanted", "reports")

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.effects_wanted = True
        self.reports: dict[int, WriteItemResult] = {}

    def record(self, effect: Effect) -> None:
        """Tell later stages what an entry did."""
        self.effects.append(effect)

    def report(self, index: int, result: WriteItemResult) -> None:
        """Set the result of the unit's entry ``index``."""
        self.reports[index] = result


class EngineTx:
    """The transaction as the engine makes it: the parts of ``LocalTx``, units, and its own end.

    What most writes have no use for is made when it is first asked for.
    """

    __slots__ = ("_inbox", "_limits", "_outbox", "_scopes", "_state", "base", "now_ms", "rows", "schema", "unit")

    def __init__(
        self,
        connection: apsw.Connection,
        schema: Schema,
        tables: Mapping[str, StoreTable],
        now_ms: int,
        limits: OutboxLimits,
        known: Known | None = None,
    ) -> None:
        self._state = state = TxState(connection, schema, tables, now_ms, known or Known())
        self.schema = schema
        self.now_ms = now_ms
        self.rows = VisibleRows(state)
        self.base = ConfirmedRows(state, self.rows)
        self.unit = Unit()
        self._limits = limits
        self._outbox: Outbox | None = None
        self._inbox: Inbox | None = None
        self._scopes: Scopes | None = None

    @property
    def outbox(self) -> Outbox:
        """The pending mutations."""
        if self._outbox is None:
            self._outbox = Outbox(self._state, self._limits)
        return self._outbox

    @property
    def inbox(self) -> Inbox:
        """What the hub refused."""
        if self._inbox is None:
            self._inbox = Inbox(self._state)
        return self._inbox

    @property
    def scopes(self) -> Scopes:
        """How far each scope is replicated."""
        if self._scopes is None:
            self._scopes = Scopes(self._state, self.base)
        return self._scopes

    def run_unit(self, request: WriteRequest, stages: Sequence[Staging]) -> UnitAnswer:
        """Run the stages, or answer a repeat from memory.

        Raises:
            Refused: The unit is atomic and an item was refused.
        """
        kept = self._kept(request.idem)
        if kept is not None:
            return self._repeat(request, kept)
        self.rows.enforce_unique = True
        for stage in stages:
            self.unit.effects_wanted = stage is not stages[-1]
            stage.stage(self, request)
            if request.options.atomic and not all(result.ok for result in self.unit.reports.values()):
                raise Refused(_aborted(self._items(request)))
        items = self._items(request)
        if self._outbox is None or not self._outbox.added:
            return UnitAnswer(items, (None,) * len(items))
        mutations = self._mutations(request)
        if any(
            mid for _, mid in self.outbox.added.values()
        ):  # volatile ones may be taken back, and then be written anew
            self._keep(request, items, mutations)
        return UnitAnswer(items, mutations)

    def _items(self, request: WriteRequest) -> tuple[WriteItemResult, ...]:
        reports = self.unit.reports
        if len(reports) == len(request.entries):
            return tuple([reports[index] for index in range(len(reports))])
        return tuple(
            reports.get(index) or WriteItemResult(entry.id, ok=True) for index, entry in enumerate(request.entries)
        )

    def _mutations(self, request: WriteRequest) -> tuple[tuple[int, int] | None, ...]:
        size, atomic = len(request.entries), request.options.atomic
        touched = {effect.index for effect in self.unit.effects}
        return tuple(
            self.outbox.added.get(item_key(request.idem, index, atomic=atomic, size=size)) if index in touched else None
            for index in range(size)
        )

    def _keep(
        self,
        request: WriteRequest,
        items: tuple[WriteItemResult, ...],
        mutations: tuple[tuple[int, int] | None, ...],
    ) -> None:
        kept = [
            _Item(item.ok, item.changed, item.version, item.error, *(mutation or (0, 0)), item.id)
            for item, mutation in zip(items, mutations, strict=True)
        ]
        self._state.connection.execute(
            "INSERT INTO _atoma_unit(idem, answer) VALUES(?,?)", (request.idem, encode(kept))
        )
        self._state.known.units = True
        number = self._state.connection.last_insert_rowid()
        self._state.connection.execute("DELETE FROM _atoma_unit WHERE n <= ?", (number - UNITS_KEPT,))

    def _kept(self, idem: str) -> Sequence[_Item] | None:
        if not self._state.known.units:
            return None
        found: object = self._state.connection.execute("SELECT answer FROM _atoma_unit WHERE idem=?", (idem,)).get
        return None if found is None else decode(cast("bytes", found), list[_Item])

    def _repeat(self, request: WriteRequest, kept: Sequence[_Item]) -> UnitAnswer:
        items: list[WriteItemResult] = []
        for entry, item in zip(request.entries, kept, strict=True):
            row = self.rows.read(entry.store, entry.id) if item.ok and item.version else None
            image = row.image if row is not None and row.version == item.version else None
            items.append(WriteItemResult(entry.id, item.ok, item.changed, item.version, image, item.error))
        return self._answer_again(items, kept)

    def recall(self, idem: str) -> UnitAnswer | None:
        """The answer of the unit with this key, without rows, and where its mutations are; None when it is not known."""
        kept = self._kept(idem)
        if kept is None:
            return None
        items = [WriteItemResult(one.id, one.ok, one.changed, one.version, error=one.error) for one in kept]
        return self._answer_again(items, kept)

    def _answer_again(self, items: Sequence[WriteItemResult], kept: Sequence[_Item]) -> UnitAnswer:
        where = self.whereabouts({item.lsn: item.mid for item in kept if item.lsn})
        mutations = tuple((item.lsn, item.mid) if item.lsn else None for item in kept)
        return UnitAnswer(tuple(items), mutations, where.pending, where.rejected, True)

    def whereabouts(self, asked: Mapping[int, int]) -> Whereabouts:
        """Where the outbox mutations ``asked`` for (lsn → mid) are now."""
        pending = {lsn: one for lsn in asked for one in self.outbox.select("WHERE lsn=?", (lsn,))}
        gone = ((lsn, self.inbox.refusal_of(lsn, mid)) for lsn, mid in asked.items() if mid and lsn not in pending)
        return Whereabouts(pending, {lsn: why for lsn, why in gone if why is not None})

    def finish(self, value: object, wrote_before: int) -> Committed:
        """Write back what was kept back and draw the commit number, if anything was written since ``wrote_before``."""
        if self._outbox is not None:
            self._outbox.flush()
        self._state.index_searches()
        number = 0
        if self._state.counters.moved or self._state.connection.total_changes() != wrote_before:
            number = self._state.counters.add("commit", 1)
            self._state.counters.flush()
        settlements = () if self._outbox is None else self._outbox.settlements
        return Committed(number, self._state.net_changes(), settlements, value)


def _aborted(items: tuple[WriteItemResult, ...]) -> tuple[WriteItemResult, ...]:
    """The items of an atomic unit that is undone because of the refused ones among them."""
    why = refusal("ABORTED", "not written: another entry of the same atomic unit was refused")
    return tuple(WriteItemResult(item.id, ok=False, error=why) if item.ok else item for item in items)
