"""The transaction as the engine makes it, and one unit of a write in it: stages, the answer, and the same answer again."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

import apsw
import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import WriteItemResult, WriteRequest, mutation_key, restated
from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Effect, PendingMutation
from atoma.contracts.replica import ReplicaDelta
from atoma.contracts.values import ErrorInfo
from atoma.ports.execution import Staging
from atoma.schema.schema import Schema
from atoma_stores.changes import CommitDelta, StoreDelta
from atoma_stores.sqlite._history import NOTHING_RECORDED, History, HistoryRecorder, NoRecorder
from atoma_stores.sqlite._inbox import Inbox
from atoma_stores.sqlite._others import NOWHERE, Standing, leave, made_by_others
from atoma_stores.sqlite._outbox import Outbox, OutboxLimits, SettledItem
from atoma_stores.sqlite._receipts import Whereabouts
from atoma_stores.sqlite._rows import ConfirmedRows, FileKnowledge, TxState, VisibleRows
from atoma_stores.sqlite._scopes import Scopes
from atoma_stores.sqlite._tables import StoreTable

UNITS_KEPT = 10_000
FORGET_EVERY = 64


class _Item(msgspec.Struct, frozen=True, array_like=True):
    """One item of a kept answer; ``lsn`` 0 when nothing was enqueued for it, ``id`` ``""`` when an older version kept it."""

    ok: bool
    changed: bool
    version: int
    error: ErrorInfo | None
    lsn: int
    mid: int
    id: str = ""


class Committed(msgspec.Struct, frozen=True):
    """The report of a transaction, to be given after COMMIT.

    Attributes:
        commit: Its number, 0 when it wrote nothing.
        changes: Net change of the visible rows.
        settlements: What receipts are notified of.
        value: What its body returned.
        saved: What ``after_save`` is to hear of.
        standing: How far the file is with it.
        others: What other programs have committed since this one was last told of its file.
        replica: What it has changed of the state of replication.
    """

    commit: int
    changes: dict[str, StoreDelta]
    settlements: Sequence[SettledItem]
    value: object
    saved: Sequence[Effect]
    standing: Standing = NOWHERE
    others: Sequence[CommitDelta] = ()
    replica: ReplicaDelta | None = None


class UnitAnswer(msgspec.Struct, frozen=True):
    """The result of a unit.

    Attributes:
        items: One per entry.
        mutations: ``(lsn, mid)`` per entry, None where nothing was enqueued.
        known: For a repeat: the mutations that are still pending, by lsn.
        rejected: For a repeat: why the hub refused mutations that lie in the inbox, by lsn.
        repeat: Whether the unit had been committed before.
    """

    items: tuple[WriteItemResult, ...]
    mutations: tuple[tuple[int, int] | None, ...]
    known: Mapping[int, PendingMutation] = MappingProxyType({})
    rejected: Mapping[int, ErrorInfo] = MappingProxyType({})
    repeat: bool = False


class UnitRefused(Exception):
    """An atomic unit has a refused item: its savepoint has to go."""

    def __init__(self, items: tuple[WriteItemResult, ...]) -> None:
        super().__init__("refused")
        self.items = items


class Unit:
    """A record that the stages of one unit share with one another and with their caller; see ``UnitPart``.

    Attributes:
        effects: What entries did, in entry order.
        effects_wanted: Whether another stage follows that may look at the effects.
        reports: Results by the index of their entry.
        told: What ``after_save`` is to hear of.
    """

    __slots__ = ("effects", "effects_wanted", "reports", "told")

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.effects_wanted = True
        self.reports: dict[int, WriteItemResult] = {}
        self.told: list[Effect] = []

    def record(self, effect: Effect) -> None:
        """Let later stages know what an entry did."""
        self.effects.append(effect)

    def tell(self, effect: Effect) -> None:
        """Have it told once the transaction is committed."""
        self.told.append(effect)

    def report(self, index: int, result: WriteItemResult) -> None:
        """Set the result of the unit's entry ``index``."""
        self.reports[index] = result

    def report_many(self, start: int, results: Sequence[WriteItemResult]) -> None:
        """Set the results of entries that follow one another."""
        self.reports.update(enumerate(results, start))


class EngineTx:
    """The transaction as the engine makes it: the parts of ``LocalTx``, units, and its own end.

    What most writes have no use for is made when it is first asked for. One that is not told what is known of the file brings the
    counters into it by itself; else that is done once for all units of a group.
    """

    __slots__ = (
        "_alone",
        "_inbox",
        "_limits",
        "_now_ms",
        "_outbox",
        "_scopes",
        "_state",
        "_wall_ms",
        "base",
        "rows",
        "schema",
        "unit",
    )

    def __init__(
        self,
        connection: apsw.Connection,
        schema: Schema,
        tables: Mapping[str, StoreTable],
        wall_ms: Callable[[], int],
        limits: OutboxLimits,
        known: FileKnowledge | None = None,
        history: History | None = None,
    ) -> None:
        self._alone = known is None
        self._state = state = TxState(connection, schema, tables, known or FileKnowledge())
        if history is not None:
            state.recorder = HistoryRecorder(connection, tables, wall_ms, history)
        self.schema = schema
        self._wall_ms = wall_ms
        self._now_ms: int | None = None
        self.rows = VisibleRows(state)
        self.base = ConfirmedRows(state, self.rows)
        self.unit = Unit()
        self._limits = limits
        self._outbox: Outbox | None = None
        self._inbox: Inbox | None = None
        self._scopes: Scopes | None = None

    @property
    def now_ms(self) -> int:
        """Wall clock of the environment, as it was when it was first asked for."""
        if self._now_ms is None:
            self._now_ms = self._wall_ms()
        return self._now_ms

    @property
    def commit(self) -> int:
        """Number of the last commit before this transaction."""
        return self._state.counters.get("commit")

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

    @property
    def history(self) -> HistoryRecorder | NoRecorder:
        """What this file remembers of its past."""
        return NOTHING_RECORDED if self._state.recorder is None else self._state.recorder

    def run_unit(self, request: WriteRequest, stages: Sequence[Staging]) -> UnitAnswer:
        """Run the stages, or answer a repeat from memory.

        Raises:
            Refused: The unit is atomic and an item was refused.
        """
        kept = self._kept(request.idem)
        if kept is not None:
            return self._repeat(request, kept)
        self.rows.enforce_unique = True
        if self._state.recorder is not None:
            self._state.recorder.unit = request
        for stage in stages:
            self.unit.effects_wanted = stage is not stages[-1]
            stage.stage(self, request)
            if request.options.atomic and not all(result.ok for result in self.unit.reports.values()):
                raise UnitRefused(_aborted(self._items(request)))
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
        touched = {effect.index for effect in self.unit.effects}
        return tuple(
            self.outbox.added.get(mutation_key(request, index)) if index in touched else None
            for index in range(len(request.entries))
        )

    def _keep(
        self,
        request: WriteRequest,
        items: tuple[WriteItemResult, ...],
        mutations: tuple[tuple[int, int] | None, ...],
    ) -> None:
        kept = [
            restated(item, _Item, lsn=lsn, mid=mid)
            for item, (lsn, mid) in zip(items, [mutation or (0, 0) for mutation in mutations], strict=True)
        ]
        self._state.connection.execute(
            "INSERT INTO _atoma_unit(idem, answer) VALUES(?,?)", (request.idem, encode(kept))
        )
        self._state.known.units = True
        number = self._state.connection.last_insert_rowid()
        if number % FORGET_EVERY == 0:
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
            items.append(restated(item, WriteItemResult, id=entry.id, row=image))
        return self._answer_again(items, kept)

    def recall(self, idem: str) -> UnitAnswer | None:
        """The answer of the unit with this key, without rows, and where its mutations are; None when it is not known."""
        kept = self._kept(idem)
        if kept is None:
            return None
        items = [restated(one, WriteItemResult) for one in kept]
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
        state = self._state
        changes, saved = state.net_changes(), tuple(self.unit.told)
        settlements = () if self._outbox is None else self._outbox.settlements
        if not state.counters.moved and state.connection.total_changes() == wrote_before:
            return Committed(0, changes, settlements, value, saved)
        replica = self._replica_delta()
        number, known = state.counters.add("commit", 1), state.known
        others: Sequence[CommitDelta] = ()
        since, now = known.told, Standing(number, known.raw, known.programs)
        if since.commit < number - 1:
            before = Standing(number - 1, known.raw, known.programs)
            others = made_by_others(state.connection, since, before, state.tables)
        if known.programs > 1:
            leave(state.connection, number, changes)
        if state.recorder is not None:
            state.recorder.record(number, changes)
        # nothing may fail from here on: SQLite does not say that a savepoint is rolled back
        known.told = now
        state.counters.leave()
        if self._outbox is not None:
            self._outbox.leave()
        if self._alone:
            known.write(state.connection)
        return Committed(number, changes, settlements, value, saved, now, others, replica)

    def _replica_delta(self) -> ReplicaDelta | None:
        """What the transaction has changed of the state of replication, by what its parts have noted."""
        outbox, scopes = self._outbox, self._scopes
        moved, used = ({}, False) if scopes is None else (scopes.moved, scopes.used)
        if outbox is None or not (outbox.identified or outbox.holds or outbox.hurried):
            if not (moved or used):
                return None
            outbox = None
        return ReplicaDelta(
            identity=outbox.identity() if outbox is not None and outbox.identified else None,
            held=outbox.held_count() if outbox is not None and outbox.holds else None,
            hurries=outbox.hurries() if outbox is not None and outbox.hurried else None,
            scopes=moved,
            brought=tuple(scopes.brought()) if scopes is not None and used else None,
        )


def _aborted(items: tuple[WriteItemResult, ...]) -> tuple[WriteItemResult, ...]:
    """The items of an atomic unit that is undone because of the refused ones among them."""
    why = refusal("ABORTED", "not written: another entry of the same atomic unit was refused")
    return tuple(WriteItemResult(item.id, ok=False, error=why) if item.ok else item for item in items)
