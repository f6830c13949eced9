"""What this file has seen of a history that the hub has lost: offered again as state, or kept for somebody to decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from atoma.contracts.mutations import MutationBody, Op, PendingMutation, Recovers
from atoma.contracts.replica import LostRow, StagedRow
from atoma.contracts.shapes import marked
from atoma.contracts.sync import Cursor, EpochWord, OpenReply, PullReply, ScopeStatus
from atoma.contracts.values import RowImage, RowKey
from atoma.ports.local import LocalTx
from atoma.schema.bodies import encode_body
from atoma.sync.failures import HistoryMoved
from atoma.sync.outbox import Chain, end_of, save_end
from atoma.sync.policies import HubLossPolicy
from atoma.sync.repair.ordering import held_up, units
from atoma.sync.settle import Settlement
from atoma.sync.snapshot import stage_changes, swapped

LOST_MS = 30 * 86_400_000
"""How long a listed row waits for somebody to decide, in milliseconds."""
HELD_BACK = "deletion"
"""Why a deletion is kept, with what needs it: the hub has found out by itself that it was restored, perhaps for the row's
sake."""
ADOPTED = "adopted"
"""Why a row of another hub is kept: nobody has said that it belongs to this one."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A scope whose history at the hub leaves this file's, with the snapshot of it that is staged.

    Attributes:
        status: What the hub says of the scope; its fork lies before the file's cursor.
        page: The last page behind the staged snapshot.
    """

    status: ScopeStatus
    page: PullReply

    @property
    def fork(self) -> Cursor:
        """Where the two histories part, as a position of the hub's."""
        return Cursor(self.page.end.epoch, self.status.fork or 0)


@dataclass(frozen=True, slots=True)
class Beyond:
    """The part of one scope that the file has seen behind its fork.

    Attributes:
        cut: The scope.
        rows: Rows as the file had them, None for those that were deleted.
        recovers: Where the file was.
        reason: Why they are not offered, ``""`` when they are.
        part: Whether the file had a part of the scope only, so that what it has not says nothing.
    """

    cut: Cut
    rows: Sequence[StagedRow]
    recovers: Recovers
    reason: str
    part: bool = False


def swap_cut(tx: LocalTx, cut: Cut, policy: HubLossPolicy, stores: frozenset[str], *, adopted: bool) -> Beyond:
    """Put the hub's state in the place of the scope's base; what the base had beyond it.

    Args:
        tx: The open transaction.
        cut: The scope, and what is staged.
        policy: The device's word.
        stores: Names of the stores that replicate.
        adopted: Whether the base is another hub's, so that this one has lost nothing.

    Raises:
        HistoryMoved: The stage is not where the page begins: somebody else has been at work.
    """
    scope = cut.status.scope
    at = tx.scopes.read(scope)
    if at.state != "tail" or at.stage_cursor != cut.page.start:
        raise HistoryMoved(f"the staged snapshot of scope {scope!r} is no longer there")
    stage_changes(tx, cut.page, stores)
    beyond = tx.scopes.beyond(scope, cut.fork.seq)
    tx.scopes.swap(scope)
    trail, turns = (tuple(mark for mark in marks if mark.seq <= cut.fork.seq) for marks in (at.trail, at.turns))
    tx.scopes.save(replace(swapped(at, cut.page), trail=trail, turns=turns))
    part = bool(marked(at.cursor.view))
    if part:  # a row that is not here was deleted, or is in no shape of this file's
        beyond = [row for row in beyond if row.image is not None]
    recovers = Recovers(at.cursor.epoch, at.cursor.seq, at.cursor.hash, b"" if adopted else at.proof)
    return Beyond(cut, beyond, recovers, ADOPTED if adopted else _why_not(cut.status, at.proof, policy), part)


def without_deletions(tx: LocalTx, beyond: Beyond) -> tuple[Beyond, Beyond]:
    """What may be offered while deletions may not, and what is held back: they, and rows that are to have their unique values."""
    deleted = [(row.store, row.id) for row in beyond.rows if row.image is None]
    held = held_up(tx, beyond.rows, deleted)
    offered = [row for row in beyond.rows if (row.store, row.id) not in held]
    kept = [row for row in beyond.rows if (row.store, row.id) in held]
    return dataclasses.replace(beyond, rows=offered), dataclasses.replace(beyond, rows=kept, reason=HELD_BACK)


def _why_not(status: ScopeStatus, proof: bytes, policy: HubLossPolicy) -> str:
    """The more careful of the operator's word and the device's counts."""
    if status.devices == "forget":
        return "forget"
    if status.devices == "ask":
        return "ask"
    if policy != "offer":
        return policy
    if not status.writable:
        return "read-only"
    return "" if proof or status.unproven else "unproven"


def is_released(row: LostRow, reply: OpenReply, policy: HubLossPolicy) -> bool:
    """Whether a row that was kept may be offered by now without anybody here being asked."""
    word = _word_for(row, reply)
    if row.resolution or word is None or (row.image is None and not word.deletes):
        return False
    if row.reason == HELD_BACK:
        return word.deletes
    asked = row.reason in ("ask", "forget", "unproven")
    return asked and word.devices == policy == "offer" and (word.unproven or bool(row.recovers.proof))


def _word_for(row: LostRow, reply: OpenReply) -> EpochWord | None:
    """What the operator says of the part of a history that ``row`` is from.

    Where the hub has never had its epoch, what is said of the epoch that ended when the hub was restored: the one before that
    in which the file was repaired. Where it does not name that either, its latest word, and no deletion that any word holds.
    """
    named = {word.epoch: word for word in reply.words}
    following = [*(word.epoch for word in reply.words[1:]), reply.epoch]
    before = {after: word for word, after in zip(reply.words, following, strict=False)}
    found = named.get(row.recovers.epoch) or before.get(row.fork.epoch)
    if found is None and reply.words:
        return replace(reply.words[-1], deletes=all(word.deletes for word in reply.words))
    return found


def lost_rows(tx: LocalTx, beyond: Beyond) -> list[LostRow]:
    """The rows as they are kept for somebody to decide; the scope has been swapped, and what is the same is not a loss."""
    scope, fork = beyond.cut.status.scope, beyond.cut.fork
    theirs = [(row, tx.base.read(row.store, row.id).image) for row in beyond.rows]
    return [
        LostRow(0, row.store, row.id, scope, row.image, image, beyond.reason, fork, beyond.recovers, tx.now_ms)
        for row, image in theirs
        if row.image != image
    ]


def part_with(tx: LocalTx, scopes: Iterable[str]) -> None:
    """Let go of what only the old hub would know: its proofs, in the scopes and in what is listed."""
    for scope in scopes:
        at = tx.scopes.read(scope)
        if at.proof:
            tx.scopes.save(replace(at, proof=b""))
    rows = tx.inbox.lost(resolved=False)
    tx.inbox.forget_lost([row.number for row in rows])
    tx.inbox.keep_lost(replace(row, reason=ADOPTED, recovers=replace(row.recovers, proof=b"")) for row in rows)


def has_aged(tx: LocalTx) -> bool:
    """Whether a listed row has waited too long for somebody to decide, or was closed long ago."""
    return any(_is_aged(row, tx.now_ms) for row in tx.inbox.lost())


def expire_lost(tx: LocalTx) -> int:
    """Close what nobody has decided about for thirty days, and forget what has been closed since; how many were closed."""
    aged = [row for row in tx.inbox.lost() if _is_aged(row, tx.now_ms)]
    closed = [row.number for row in aged if not row.resolution]
    for number in closed:
        tx.inbox.resolve_lost(number, "expired")
    tx.inbox.forget_lost([row.number for row in aged if row.resolution])
    return len(closed)


def _is_aged(row: LostRow, now_ms: int) -> bool:
    return row.at_ms < now_ms - (2 * LOST_MS if row.resolution else LOST_MS)


class Offers:
    """A numbering of offers from 1, in front of everything else that is pending.

    Args:
        tx: The open transaction.
        ids: Draws idempotency keys.
    """

    def __init__(self, tx: LocalTx, ids: Callable[[], str]) -> None:
        self._tx = tx
        self._ids = ids
        self._made: list[tuple[PendingMutation, Sequence[tuple[str, str, RowImage | None]]]] = []
        self.chain = Chain()
        self.rows = 0

    def add(self, beyond: Beyond, work: Settlement) -> None:
        """Offer every row of ``beyond``, those together that have exchanged unique values, and say that this was all, if it was."""
        scope = beyond.cut.status.scope
        for unit in units(self._tx, beyond.rows):
            bases = [(row.store, row.id, set_aside(self._tx, row.store, row.id, scope)) for row in unit]
            self._put(scope, beyond, tuple([offer_op(row.store, row.id, row.image) for row in unit]), bases)
            work.dirty.update({(row.store, row.id): None for row in unit})
        self.rows += len(beyond.rows)
        if beyond.recovers.proof and not beyond.part:  # else nobody knows how far that was
            self._put(scope, beyond, (), [])

    def _put(
        self, scope: str, beyond: Beyond, ops: tuple[Op, ...], rows: Sequence[tuple[str, str, RowImage | None]]
    ) -> None:
        fork = beyond.cut.fork
        recovers = _placed(beyond.recovers, fork) if ops else replace(beyond.recovers, last=True)
        self._made.append((_offer(self._tx, self.chain, self._ids(), scope, fork, ops, recovers), rows))

    def enqueue(self) -> None:
        """Add them to the outbox, below everything that is pending."""
        self._tx.outbox.add_below(self._made)


def offer_op(store: str, id: str, image: RowImage | None) -> Op:
    """The operation that makes the row ``image``."""
    return Op("delete", store, id) if image is None else Op("replace", store, id, image)


def set_aside(tx: LocalTx, store: str, id: str, scope: str) -> RowImage | None:
    """Make sure that the confirmed image of a row lies beside it, as under every pending mutation; that image."""
    base = tx.base.read(store, id)
    if not base.shadowed:
        tx.base.shadow(store, id, scope, base.image)
        tx.base.put(store, id, scope, base.image, base.seq)
    return base.image


def _placed(recovers: Recovers, fork: Cursor) -> Recovers:
    """Where an offer is from: what nothing proves is from where the histories part."""
    return recovers if recovers.proof else Recovers(recovers.epoch, fork.seq, b"", b"")


def _offer(
    tx: LocalTx, chain: Chain, key: str, scope: str, fork: Cursor, ops: tuple[Op, ...], recovers: Recovers | None
) -> PendingMutation:
    """The mutation that offers something of ``scope``, at the end of ``chain``; it builds on the fork."""
    mid = chain.next_mid
    body = MutationBody(mid, key, scope, fork.seq, tx.schema.version, tx.now_ms, ops, fork.epoch, recovers=recovers)
    data = encode_body(body, tx.schema)
    return chain.append(PendingMutation(0, "outbox", mid, key, scope, fork.seq, data, b""))


def offer_again(
    tx: LocalTx, entries: Sequence[LostRow], ids: Callable[[], str], *, released: bool = False
) -> dict[RowKey, None]:
    """Offer rows that were kept, from the position that they are from; those that are resolved are passed over.

    Returns:
        The rows that are to be rebuilt.

    Args:
        tx: The open transaction.
        entries: The rows.
        ids: Draws idempotency keys.
        released: Whether the operator takes them, also if nothing proves them; a user's word makes those a guarded write.
    """
    still_open = {entry.number for entry in tx.inbox.lost(resolved=False)}
    chain = end_of(tx)
    dirty: dict[RowKey, None] = {}
    for unit in _in_units(tx, [entry for entry in entries if entry.number in still_open]):
        first = unit[0]
        ops = tuple([offer_op(entry.store, entry.id, entry.image) for entry in unit])
        proved = released or bool(first.recovers.proof)
        if not proved:
            ops = tuple([replace(op, cas=True) for op in ops])
        recovers = _placed(first.recovers, first.fork) if proved else None
        pending = _offer(tx, chain, ids(), first.scope, first.fork, ops, recovers)
        before: list[tuple[str, str, RowImage | None]] = []
        for entry in unit:
            row = tx.rows.read(entry.store, entry.id)
            before.append((entry.store, entry.id, None if row is None else row.image))
            set_aside(tx, entry.store, entry.id, entry.scope)
            tx.inbox.resolve_lost(entry.number, "offered")
            dirty[entry.store, entry.id] = None
        tx.outbox.add(pending, before, limited=False)
    save_end(tx, chain)
    return dirty


def _in_units(tx: LocalTx, entries: Sequence[LostRow]) -> Iterator[list[LostRow]]:
    """``entries`` as they are offered: those together that were in one place of one history and have exchanged unique values."""
    left = list(entries)
    while left:
        first, rows, later = left[0], dict[RowKey, LostRow](), list[LostRow]()
        for entry in left:
            fits = (entry.scope, entry.fork, entry.recovers) == (first.scope, first.fork, first.recovers)
            if fits and (entry.store, entry.id) not in rows:
                rows[entry.store, entry.id] = entry
            else:
                later.append(entry)
        yield from units(tx, list(rows.values()))
        left = later
