"""ApplyFlow: the apply port over the local database; where confirmed state comes back in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from atoma.contracts.execution import WriteItemResult, WriteRequest
from atoma.contracts.values import RowKey, StoredRow
from atoma.contracts.writeback import Applied, ConfirmedRow, DecidedMutation, Writeback
from atoma.errors import PluginError
from atoma.mutations import rebase_rows
from atoma.mutations.layers import BaseVersions, Laid, Settled, Unpredictable, known_versions, lay, settle
from atoma.ports.engine import LocalDatabase
from atoma.ports.execution import Voided, WritebackPart
from atoma.ports.local import LocalTx


class ApplyFlow:
    """The owner of ``ApplyPort``: the base takes a value over, the part for sync does its own, the overlay is rebuilt.

    Args:
        database: The local database.
        synced: Stores that replicate: the file keeps no unique index of them, so nothing of their base is ever refused.
        part: Gives what sync has to change in the same transaction, when there is something; None without it.

    Attributes:
        freshness: Tells which answers are too old to be taken over.
    """

    def __init__(
        self,
        database: LocalDatabase,
        synced: frozenset[str] = frozenset(),
        part: Callable[[], WritebackPart] | None = None,
    ) -> None:
        self._database = database
        self._synced = synced
        self._part = part
        self.freshness = Freshness()

    async def apply_writeback(self, writeback: Writeback) -> Applied:
        """Take ``writeback`` over in one local transaction; see ``ApplyPort``."""
        try:
            return await self._database.apply(
                partial(self._take_over, writeback=writeback),
                durability=writeback.durability,
                short=writeback.short,
            )
        except Voided as voided:
            return Applied(told=voided.told)

    def _take_over(self, tx: LocalTx, writeback: Writeback) -> Applied:
        touched: dict[RowKey, None] = {}
        fresh = [row for row in writeback.rows if self._is_news(row, writeback)]
        self._put(tx, fresh, touched)
        kept = frozenset(self._drop(tx, writeback))
        decided = list(_decided(tx, writeback, touched))
        told = self._stage(tx, writeback, decided, touched)
        rebase_rows(tx, touched)
        return Applied(versions=_versions(tx, writeback.rows) if writeback.versions else {}, kept=kept, told=told)

    def _stage(
        self,
        tx: LocalTx,
        writeback: Writeback,
        decided: Sequence[DecidedMutation],
        touched: dict[RowKey, None],
    ) -> object:
        if writeback.replication is None and not decided:
            return None
        if self._part is not None:
            return self._part().stage(tx, writeback, decided, touched)
        if writeback.replication is not None:
            raise PluginError(f"no part of this client carries out {type(writeback.replication).__name__}")
        return None

    def _is_news(self, row: ConfirmedRow, writeback: Writeback) -> bool:
        return writeback.as_of is None or not self.freshness.is_old(writeback.as_of, (row.store, row.id))

    def _put(self, tx: LocalTx, rows: Sequence[ConfirmedRow], touched: dict[RowKey, None]) -> None:
        """Make ``rows`` the base; those that are not the visible ones by that are ``touched``."""
        placed = ((row.store, row.scope or _scope(tx, row), row) for row in rows)
        for (store, scope), group in groupby(placed, itemgetter(0, 1)):
            changed = [row for _, _, row in group]
            if store not in self._synced and tx.schema.store(store).unique:
                for row in changed:  # an older row of the cache may still show one of its values
                    base = tx.base.read(store, row.id)
                    if not base.shadowed:
                        tx.base.shadow(store, row.id, base.scope or scope, base.image)
            aside = tx.base.put_many(store, scope, ((row.id, row.image, row.version) for row in changed))
            touched.update(dict.fromkeys((store, id) for id in aside))

    def _drop(self, tx: LocalTx, writeback: Writeback) -> Iterator[RowKey]:
        """Take the rows that are missing out of the base; those that stay."""
        for row in writeback.missing:
            if tx.base.read(row.store, row.id).shadowed or not self._is_news(row, writeback):
                yield row.store, row.id
            else:
                tx.base.put(row.store, row.id, row.scope, None, 0)

    async def versions_of(self, rows: Sequence[ConfirmedRow]) -> dict[RowKey, int]:
        """Version here of each of ``rows`` that is visible as it is confirmed.

        Raises:
            StoreError: The engine failed.
        """
        return await self._database.inspect(lambda tx: _versions(tx, rows))

    # layers: what the runtime shows before an authority has decided it, and takes back or confirms then

    async def show(self, request: WriteRequest) -> Laid | None:
        """Show ``request`` before it is decided; None when the rows of this device cannot predict it.

        The next start takes it back in any case, so it is worth no fsync.

        Raises:
            StoreError: The engine failed; nothing is shown.
        """
        try:
            return await self._database.apply(lambda tx: lay(tx, request), durability="normal")
        except Unpredictable:
            return None

    async def settle(self, request: WriteRequest, layers: Sequence[int], items: Sequence[WriteItemResult]) -> Settled:
        """Confirm what is ok of ``items``, and take ``layers`` out.

        Raises:
            StoreError: The engine failed; nothing has changed.
        """
        durability = self._database.durability_of(
            [entry.store for entry in request.entries], request.options.durability
        )
        return await self._database.apply(lambda tx: settle(tx, request, layers, items), durability=durability)

    async def known_versions(self, request: WriteRequest) -> BaseVersions:
        """The authority's versions of the rows that are here as ``request`` names them.

        Raises:
            StoreError: The engine failed.
        """
        return await self._database.inspect(lambda tx: known_versions(tx, request))


def confirmed(store: str, rows: Iterable[StoredRow]) -> list[ConfirmedRow]:
    """Rows of an answer as what the authority has."""
    return [ConfirmedRow(store, row.id, row.image, row.seq, row.scope) for row in rows]


def _scope(tx: LocalTx, row: ConfirmedRow) -> str:
    scope = tx.base.read(row.store, row.id).scope
    return scope or ("" if row.image is None else tx.schema.store(row.store).scope_of(row.image))


def _decided(tx: LocalTx, writeback: Writeback, touched: dict[RowKey, None]) -> Iterator[DecidedMutation]:
    """The mutations of the outbox that there are verdicts on; layers with one leave the overlay here."""
    found = tx.outbox.by_keys(writeback.verdicts) if writeback.verdicts else {}
    for key, outcome in writeback.verdicts.items():
        pending = found.get(key)
        if pending is None:
            continue
        if pending.kind == "outbox":
            yield pending, outcome
        else:
            touched.update(dict.fromkeys(tx.outbox.remove({pending.lsn: outcome})))


def _versions(tx: LocalTx, rows: Sequence[ConfirmedRow]) -> dict[RowKey, int]:
    return {
        (row.store, row.id): here.version
        for row in rows
        if (here := tx.rows.read(row.store, row.id)) is not None and here.image == row.image
    }


ROWS_MAX = 4096
READS_MAX = 256


class Freshness:
    """A memory of when rows were settled; bounded, and careful about what it has forgotten.

    Attributes:
        now: How many settlements there were: what a read notes when it begins.
    """

    def __init__(self) -> None:
        self.now = 0
        self._forgotten = 0
        self._settled: OrderedDict[RowKey, int] = OrderedDict()
        self._behind: OrderedDict[str, int] = OrderedDict()

    def settled(self, rows: Iterable[RowKey]) -> None:
        """The authority's images of ``rows`` are here."""
        self.now += 1
        for row in rows:
            self._settled[row] = self.now
            self._settled.move_to_end(row)
        while len(self._settled) > ROWS_MAX:
            _, self._forgotten = self._settled.popitem(last=False)

    def goes_on(self, trace_id: str, began: int) -> None:
        """A part of the read goes on behind its answer."""
        self._behind[trace_id] = began
        while len(self._behind) > READS_MAX:
            self._behind.popitem(last=False)

    def ended(self, trace_id: str) -> int:
        """That part has its answer; returns when the read began."""
        return self._behind.pop(trace_id, self.now)

    def is_old(self, began: int, row: RowKey) -> bool:
        """Whether the row may have been settled after a read that ``began`` then."""
        return began < self._forgotten or began < self._settled.get(row, 0)
