"""Changing what has never been sent: mutations are held back, released, edited and discarded.

The hub knows a mutation by its number and by the chain of digests, so both are fixed once it was sent. Until then nobody has
seen them: what stands behind one that is taken out is numbered and chained anew, and its place in the overlay stays. The
mutations of one row keep their order, whatever is done: one that is held or discarded takes along those that build on it, and
those that are held on one row are released together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.mutations import BUILDS_ON_HELD, HELD_MID, MutationBody, PendingMutation
from atoma.contracts.replica import ClientIdentity
from atoma.contracts.sync import Limits
from atoma.contracts.values import RowImage, RowKey
from atoma.errors import ConflictError, SyncError, ValidationError
from atoma.mutations import rebase_rows
from atoma.ports.local import LocalTx
from atoma.schema.bodies import decode_body, encode_body
from atoma.sync.outbox import Chain, check_size, end_of, save_end
from atoma.sync.settle import Refusals, Settlement
from atoma.sync.staging import Opened


class AlreadySent(SyncError):
    """A write was sent, or may have been, so that the hub decides it; nothing was changed here."""

    code = "ALREADY_SENT"


class NotPending(SyncError):
    """A write does not wait any more: the hub has decided it, or it was discarded; nothing was changed."""

    code = "NOT_PENDING"


def is_unsent(identity: ClientIdentity, mutation: PendingMutation) -> bool:
    """Whether nobody but this file has ever seen ``mutation``, so that it may still change."""
    if mutation.kind == "held":
        return True
    if mutation.kind != "outbox" or identity.may_have_sent(mutation.mid):
        return False
    body = decode(mutation.body, MutationBody)
    # else an earlier life of the file has sent it, or the hub had it
    return body.origin is None and body.recovers is None


@dataclass(slots=True)
class _Waiting:
    """The mutations that may still change.

    Attributes:
        by_key: Those in local order, by their idempotency keys.
        rows: The rows that each of them is on, by lsn.
    """

    tx: LocalTx
    by_key: dict[str, PendingMutation] = field(default_factory=dict[str, PendingMutation])
    rows: dict[int, set[RowKey]] = field(default_factory=dict[int, set[RowKey]])

    def __post_init__(self) -> None:
        identity = self.tx.outbox.identity()
        found = [*self.tx.outbox.every(), *self.tx.outbox.held()]
        for mutation in sorted((one for one in found if is_unsent(identity, one)), key=lambda one: one.lsn):
            self.by_key[mutation.idem] = mutation
            body = decode(mutation.body, MutationBody)
            self.rows[mutation.lsn] = {(op.store, op.id) for op in body.ops}

    def named(self, keys: Iterable[str]) -> list[PendingMutation]:
        """The mutations with ``keys``.

        Raises:
            AlreadySent: One was sent, or may have been.
            NotPending: One is not pending.
        """
        found: list[PendingMutation] = []
        for key in keys:
            mutation = self.by_key.get(key)
            if mutation is None:
                pending = self.tx.outbox.by_keys([key]).get(key)
                if pending is None or pending.kind == "volatile":
                    raise NotPending(f"write {key!r} does not wait here any more; look at the outbox again")
                raise AlreadySent(
                    f"write {key!r} was sent, or may have been, and the hub decides it; undo it with another write"
                )
            found.append(mutation)
        return found

    def with_dependents(self, chosen: Sequence[PendingMutation]) -> list[PendingMutation]:
        """``chosen`` and every later one that builds on one of them, in local order."""
        reached = {one.lsn for one in chosen}
        rows: set[RowKey] = set()
        for lsn, touched in self.rows.items():
            if lsn in reached or rows & touched:
                reached.add(lsn)
                rows |= touched
        return [one for one in self.by_key.values() if one.lsn in reached]

    def held_with(self, chosen: Sequence[PendingMutation]) -> list[PendingMutation]:
        """Those of ``chosen`` that are held, and every held one that shares rows with them, however far, in local order."""
        held = [one for one in self.by_key.values() if one.kind == "held"]
        reached = {one.lsn for one in chosen if one.kind == "held"}
        rows = {row for lsn in reached for row in self.rows[lsn]}
        while more := [one for one in held if one.lsn not in reached and rows & self.rows[one.lsn]]:
            reached |= {one.lsn for one in more}
            rows |= {row for one in more for row in self.rows[one.lsn]}
        return [one for one in held if one.lsn in reached]


@dataclass(frozen=True, slots=True)
class Kept:
    """Mutations stay on this device until they are released, and those that build on them with them."""

    keys: Sequence[str]
    why: str

    def stage(self, at: Opened) -> int:
        """Hold them; how many were not held before."""
        waiting = _Waiting(at.tx)
        chosen = waiting.named(self.keys)
        named = {one.lsn for one in chosen}
        reached = [one for one in waiting.with_dependents(chosen) if one.kind == "outbox"]
        if reached:
            numbers = {one.mid for one in reached}
            held = [_as_held(one, numbers, self.why if one.lsn in named else BUILDS_ON_HELD) for one in reached]
            _close_ranks(at.tx, min(numbers), held)
        return len(reached)


def _as_held(mutation: PendingMutation, numbers: Collection[int], why: str) -> PendingMutation:
    """``mutation`` without a number; what it builds on is found again when it is released, if that is held as well."""
    body = decode(mutation.body, MutationBody)
    ops = tuple(replace(op, after_mid=0) if op.after_mid in numbers else op for op in body.ops)
    packed = encode(replace(body, mid=HELD_MID, ops=ops))
    return replace(mutation, kind="held", mid=HELD_MID, body=packed, digest=b"", last_error=why)


def _close_ranks(
    tx: LocalTx, first: int, held: Sequence[PendingMutation] = (), edited: PendingMutation | None = None
) -> None:
    """Number and chain the outbox anew from ``first`` on, without those that are ``held`` now, one of them ``edited``."""
    identity = tx.outbox.identity()
    before = None if first == identity.sent_mid + 1 else tx.outbox.by_mid(first - 1)
    chain = Chain(first, identity.sent_digest if before is None else before.digest)
    leaving = {one.lsn for one in held}
    numbers: dict[int, int] = {}
    rewritten: list[PendingMutation] = []
    for each in tx.outbox.every():
        if each.mid < first or each.lsn in leaving:
            continue
        mutation = edited if edited is not None and edited.lsn == each.lsn else each
        body = _behind(decode(mutation.body, MutationBody), numbers)
        numbers[mutation.mid] = chain.next_mid
        rewritten.append(chain.append_again(mutation, body))
    waiting = [*tx.outbox.held(), *held] if numbers else held
    moved = [replace(one, body=encode(_behind(decode(one.body, MutationBody), numbers))) for one in waiting]
    tx.outbox.rewrite([*moved, *rewritten])
    save_end(tx, chain)


def _behind(body: MutationBody, numbers: Mapping[int, int]) -> MutationBody:
    """``body`` with what it builds on by its new numbers."""
    return replace(body, ops=tuple(replace(op, after_mid=numbers.get(op.after_mid, op.after_mid)) for op in body.ops))


@dataclass(frozen=True, slots=True)
class Released:
    """Held mutations are sent, and with them those on the same rows; they come behind everything that waits."""

    keys: Sequence[str]

    def stage(self, at: Opened) -> Settlement:
        """Release them; one that builds on a refused write comes to the inbox, as it would have when that was refused."""
        tx, waiting = at.tx, _Waiting(at.tx)
        work = Settlement(at.touched)
        chain, refusals = end_of(tx), Refusals(tx)
        numbers: dict[RowKey, int] = {}
        released: list[PendingMutation] = []
        for mutation in waiting.held_with(waiting.named(self.keys)):
            body = decode(mutation.body, MutationBody)
            if refusals.refuse(mutation, body, work):
                continue
            rows = waiting.rows[mutation.lsn]
            numbers.update({row: _last_number(tx, row) for row in rows - numbers.keys()})
            ops = tuple(replace(op, after_mid=numbers[op.store, op.id]) for op in body.ops)
            numbers.update(dict.fromkeys(rows, chain.next_mid))
            released.append(chain.append_again(replace(mutation, last_error=""), replace(body, ops=ops)))
        if released:
            tx.outbox.rewrite(released)
            save_end(tx, chain)
        return work


def _last_number(tx: LocalTx, row: RowKey) -> int:
    """The last number that was given to a pending mutation on ``row``, 0 for none."""
    return max((one.mid for one in tx.outbox.on_row(*row) if one.kind == "outbox"), default=0)


@dataclass(frozen=True, slots=True)
class WriteDiscarded:
    """Mutations are taken back, as if they had never been written."""

    keys: Sequence[str]
    dependents: bool

    def stage(self, at: Opened) -> int:
        """Take them out of the outbox and of what is visible; how many.

        Raises:
            ConflictError: Later ones build on them, and are not to go with them.
        """
        waiting = _Waiting(at.tx)
        chosen = waiting.named(self.keys)
        reached = waiting.with_dependents(chosen)
        others = len(reached) - len({one.lsn for one in chosen})
        if others and not self.dependents:
            store, id = min(waiting.rows[chosen[0].lsn])
            raise ConflictError(
                f"{others} later writes build on what is to be discarded; discard them with it (dependents=True), or undo it "
                "with another write",
                store=store,
                id=id,
            )
        for one in reached:
            at.touched.update(dict.fromkeys(at.tx.outbox.remove({one.lsn: None})))
        numbers = [one.mid for one in reached if one.kind == "outbox"]
        if numbers:
            _close_ranks(at.tx, min(numbers))
        return len(reached)


@dataclass(frozen=True, slots=True)
class Edited:
    """An operation of a mutation writes other values, where it stands in the order.

    Attributes:
        key: The key of the mutation.
        row: The row that the operation is on.
        values: The values, by field.
        limits: Bounds that the mutation has to keep to.
    """

    key: str
    row: RowKey
    values: Mapping[str, object]
    limits: Limits

    def stage(self, at: Opened) -> None:
        """Edit it, and what is visible.

        Raises:
            ValidationError: It does not write the row, or not these values.
            ConflictError: The row would have a unique value of another one.
        """
        tx, (store, id) = at.tx, self.row
        (mutation,) = _Waiting(tx).named([self.key])
        spec = tx.schema.store(store)
        values = spec.encode_changes(self.values)
        merging = spec.merging.edited
        body = self._with_values(decode_body(mutation.body, tx.schema), values, merging)
        packed = encode_body(replace(body, schema_version=tx.schema.version), tx.schema)
        check_size(packed, body.ops, self.limits, tx.schema)
        local = mutation.local and encode_body(
            self._with_values(decode_body(mutation.local, tx.schema), values, merging), tx.schema
        )
        edited = replace(mutation, body=packed, local=local)
        if mutation.kind == "held":
            tx.outbox.rewrite([edited])
        else:
            _close_ranks(tx, mutation.mid, edited=edited)
        rebase_rows(tx, [self.row])
        tx.rows.check_unique(store, id)

    def _with_values(self, body: MutationBody, values: RowImage, merging: frozenset[str]) -> MutationBody:
        store, id = self.row
        last = max((n for n, op in enumerate(body.ops) if (op.store, op.id) == self.row), default=-1)
        if last < 0 or body.ops[last].kind == "delete":
            raise ValidationError(f"write {self.key!r} writes no values of {store}/{id}", store=store, value=id)
        ops = list(body.ops)
        op = ops[last]
        if op.kind != "create" and not merging.isdisjoint(values):
            name = min(merging & values.keys())
            why = "what waits says how it changes, not what it becomes; discard the write and write another"
            raise ValidationError(f"{store}.{name} merges by itself: {why}", store=store, field=name)
        defaults = {name: value for name, value in op.defaults.items() if name not in values}
        ops[last] = replace(op, values={**op.values, **values}, defaults=defaults)
        return replace(body, ops=tuple(ops))
