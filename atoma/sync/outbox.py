"""The outbox node: what a local write owes the hub, recorded in the write's own transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import BUILDS_ON_HELD, HELD_MID, Effect, MutationBody, Op, PendingMutation
from atoma.contracts.survey import UNCOUNTED_BYTES, VALUES_MAX, Survey
from atoma.contracts.sync import PROTOCOL_EDITS, PROTOCOL_TEXTS, Cursor, Limits
from atoma.contracts.values import RowKey, StoredRow
from atoma.errors import RemoteError, ScopeNotSubscribed, ValidationError
from atoma.mutations import bare, mutations_of, queued, rows_of, too_many_texts
from atoma.ports.local import LocalTx
from atoma.schema.bodies import encode_body
from atoma.schema.schema import Schema

OUTBOX_NODE = "outbox"


def next_digest(previous: bytes, body: bytes) -> bytes:
    """The digest chain after ``body``."""
    return hashlib.sha256(previous + body).digest()


@dataclass(slots=True)
class Chain:
    """The end of an outbox, where mutations get their numbers and are chained to those before them.

    Attributes:
        next_mid: The number that the next mutation gets.
        tail: Digest chain after the one before it.
    """

    next_mid: int = 1
    tail: bytes = b""

    def append(self, mutation: PendingMutation) -> PendingMutation:
        """``mutation`` as the next one for the hub; its body has to say :attr:`next_mid`."""
        self.tail = next_digest(self.tail, mutation.body)
        appended = replace(mutation, kind="outbox", mid=self.next_mid, digest=self.tail)
        self.next_mid += 1
        return appended

    def append_again(self, mutation: PendingMutation, body: MutationBody) -> PendingMutation:
        """``mutation``, which had another number or none, as the next one; ``body`` is what it says, its values packed."""
        packed = encode(replace(body, mid=self.next_mid))
        return self.append(replace(mutation, base_seq=body.base_seq, body=packed))


def end_of(tx: LocalTx) -> Chain:
    """Where the outbox goes on."""
    identity = tx.outbox.identity()
    return Chain(identity.next_mid, identity.tail_digest)


@dataclass(slots=True)
class PushState:
    """The push lane as writes see it.

    Attributes:
        idle: Whether it has sent all that there is and sends what comes at once.
    """

    idle: bool = False


def save_end(tx: LocalTx, chain: Chain, *, leaves: bool = False) -> None:
    """Let the outbox go on behind what was appended to ``chain``; what ``leaves`` at once is noted as sent (ADR 0137)."""
    identity = tx.outbox.identity()
    moved = replace(identity, next_mid=chain.next_mid, tail_digest=chain.tail)
    if leaves and identity.may_have_sent(identity.next_mid - 1):
        moved = moved.once_sent(chain.next_mid - 1, chain.tail)
    tx.outbox.save_identity(moved)


def note_sent(tx: LocalTx, mutation: PendingMutation) -> None:
    """Note that ``mutation``, and with it everything before, was sent or is about to be; see :meth:`ClientIdentity.once_sent`."""
    identity = tx.outbox.identity()
    noted = identity.once_sent(mutation.mid, mutation.digest)
    if noted is not identity:
        tx.outbox.save_identity(noted)


def digest_before(tx: LocalTx, mid: int) -> bytes | None:
    """The digest chain before ``mid``, None when it is forgotten."""
    if mid == 1:
        return b""
    before = tx.outbox.by_mid(mid - 1)
    return None if before is None else before.digest


def base_position(tx: LocalTx, effects: Sequence[Effect], cursors: dict[str, Cursor]) -> Cursor:
    """What the user had seen when they wrote a mutation: the cursor of its scope.

    Not the version of a row: that says nothing about a row that is absent, nor about other rows of the mutation.

    Args:
        tx: The open transaction.
        effects: The mutation's effects, all in one scope.
        cursors: Cursors read in this unit, by scope; added to.
    """
    scope = effects[0].scope
    if scope not in cursors:
        cursors[scope] = tx.scopes.read(scope).cursor
    return cursors[scope]


class OutboxNode:
    """The node that stages a unit's mutations: one for an atomic unit, else one for every entry that changed something.

    Args:
        database: Identity of the database it stages into.
        stores: Names of the stores that replicate; effects on others stay on this device.
        scopes: Scopes this client always syncs; the file says which others it does.
        limits: Bounds a mutation has to keep to, checked here because the hub could only refuse it for ever.
        lane: The lane that sends what is staged; None where none does of its own accord.
    """

    def __init__(
        self,
        database: str,
        stores: Iterable[str],
        scopes: Sequence[str],
        limits: Limits | None = None,
        lane: PushState | None = None,
    ) -> None:
        self._database = database
        self._stores = frozenset(stores)
        self._scopes = tuple(scopes)
        self._limits = limits or Limits()
        self._lane = lane or PushState()

    @property
    def database(self) -> str:
        """Identity of the database it stages into."""
        return self._database

    def stage(self, tx: LocalTx, request: WriteRequest) -> None:
        """Add the unit's mutations to the outbox and set the confirmed images of its rows aside.

        Raises:
            ScopeNotSubscribed: A row belongs to a scope that this client does not sync.
            ValidationError: An atomic unit spans scopes, or a mutation is larger than a hub may take.
            OutboxFull: The outbox is at its limit.
        """
        effects = [effect for effect in tx.unit.effects if effect.op.store in self._stores]
        if effects:
            self.enqueue(tx, request, effects)

    def enqueue(self, tx: LocalTx, request: WriteRequest, effects: Sequence[Effect]) -> None:
        """Add the mutations of ``effects``, which ``request`` had; the same errors as :meth:`stage`."""
        for scope in {effect.scope: None for effect in effects}:
            if scope not in self._scopes and not tx.scopes.is_brought(scope):
                raise ScopeNotSubscribed(scope, self._scopes)
        if request.options.atomic:
            for _, together in mutations_of(request, effects):
                self._check_scope(together)
        enqueue(tx, mutations_of(request, effects), self._limits, leaves=self._lane.idle)

    def _check_scope(self, effects: Sequence[Effect]) -> None:
        scopes = {effect.scope for effect in effects}
        if len(scopes) > 1:
            raise ValidationError(
                f"an atomic unit has to stay within one scope, this one touches {', '.join(sorted(scopes))}; "
                "write once per scope",
                store=effects[0].op.store,
            )


def enqueue(
    tx: LocalTx,
    mutations: Iterable[tuple[str, Sequence[Effect]]],
    limits: Limits,
    *,
    leaves: bool = False,
    limited: bool = True,
) -> None:
    """Number, chain and add mutations; one on a row with a held one is held, too.

    Args:
        tx: The open transaction.
        mutations: The key of each, and its effects, all in one scope.
        limits: Bounds that each has to keep to.
        leaves: Whether they are sent as soon as they are committed.
        limited: Whether the outbox's limit and ``limits`` hold for them. Not for what the file has already: one row would keep everything
            waiting, where the hub refuses one that is too large, to the inbox.

    Raises:
        ValidationError: One is larger than a hub may take.
        OutboxFull: The outbox is at its limit.
    """
    chain = end_of(tx)
    cursors: dict[str, Cursor] = {}
    for idem, effects in mutations:
        scope = effects[0].scope
        base = base_position(tx, effects, cursors)
        rows = rows_of(effects)
        pending = {(store, id) for store, id, pre in rows if not tx.base.shadow(store, id, scope, pre)}
        ops = tuple(_linked(tx, effect, pending) for effect in effects)
        held = bool(pending) and any(op.after_mid == HELD_MID for op in ops)
        if held:
            ops = tuple(replace(op, after_mid=0) for op in ops)
        number = HELD_MID if held else chain.next_mid
        whole = MutationBody(number, idem, scope, base.seq, tx.schema.version, tx.now_ms, ops, base.epoch)
        sent = tuple([bare(op, tx.schema.store(op.store)) for op in ops])
        body = encode_body(replace(whole, ops=sent), tx.schema)
        # what the hub will set, as it is shown until then
        local = b"" if sent == ops else encode_body(whole, tx.schema)
        if limited:
            check_size(body, ops, limits, tx.schema)
        waiting = PendingMutation(0, "held", number, idem, scope, base.seq, body, b"", local=local)
        added = replace(waiting, last_error=BUILDS_ON_HELD) if held else chain.append(waiting)
        tx.outbox.add(added, rows, limited=limited)
    save_end(tx, chain, leaves=leaves)


def takes_every_edit(proto: int) -> bool:
    """Whether a hub that speaks version ``proto`` of the protocol understands every edit that there is."""
    return proto >= PROTOCOL_TEXTS


def unspeakable(tx: LocalTx, verified_mid: int, proto: int) -> RemoteError | None:
    """Why the outbox has to wait for a hub that understands edits; None when it understands all that is in it.

    A hub of before would pass over them, and tell that it had taken the mutation, or that nobody can read it.

    Args:
        tx: The open transaction.
        verified_mid: Last mutation the hub has decided.
        proto: The version of the protocol that it speaks.
    """
    if takes_every_edit(proto):
        return None
    for mutation in tx.outbox.every():
        if mutation.mid > verified_mid:
            edits = [edit for op in decode(mutation.body, MutationBody).ops for edit in op.edits]
            if any(edit.kind == "text" or proto < PROTOCOL_EDITS for edit in edits):
                message = (
                    f"mutation {mutation.mid} changes a counter, a set, a maximum, a minimum or a text that merges, and the hub "
                    "speaks a version of the protocol without them; the outbox is kept until the hub is upgraded"
                )
                return RemoteError(message, remote_code="PROTO_UNSUPPORTED")
    return None


def check_size(body: bytes, ops: tuple[Op, ...], limits: Limits, schema: Schema) -> None:
    """Refuse a mutation that a hub could only refuse.

    Raises:
        ValidationError: It is larger than ``limits``.
    """
    if len(body) > limits.mutation_bytes:
        raise ValidationError(
            f"a mutation of {len(body)} bytes exceeds the hub's limit of {limits.mutation_bytes}; "
            "split the unit or store less in one row",
            store=ops[0].store,
            value=ops[0].id,
        )
    if len(ops) > limits.mutation_ops:
        raise ValidationError(
            f"an atomic unit of {len(ops)} entries exceeds the hub's limit of {limits.mutation_ops}; split it",
            store=ops[0].store,
        )
    wrong = too_many_texts(ops, schema)
    if wrong:
        raise ValidationError(wrong, store=ops[0].store)
    if len(body) > UNCOUNTED_BYTES and Survey().finish(body).too_many:
        raise ValidationError(
            f"an atomic unit of more than {VALUES_MAX:,} values exceeds what a hub takes; split it",
            store=ops[0].store,
        )


def _linked(tx: LocalTx, effect: Effect, pending: set[RowKey]) -> Op:
    """The effect's operation as the mutation holds it, tied to this client's previous pending mutation on the row if it is one of ``pending``."""
    op = effect.op
    return queued(op, tx.outbox.last_mid(op.store, op.id) if (op.store, op.id) in pending else 0)


def queue_creates(tx: LocalTx, store: str, scope: str, rows: Sequence[StoredRow], idem: str) -> int:
    """Queue a create for each of ``rows`` that the hub still has not sent and that is not queued; how many."""
    effects: list[Effect] = []
    for row in rows:
        current = tx.rows.read(store, row.id)
        if current is None or current.seq or tx.outbox.on_row(store, row.id):
            continue
        op = Op("create", store, row.id, current.image)
        effects.append(Effect(op, scope, None, current.image, len(effects)))
    if not effects:
        return 0
    entries = tuple(effect.op for effect in effects)
    request = WriteRequest(entries, WriteOptions(), OperationContext(idem), idem)
    enqueue(tx, mutations_of(request, effects), Limits(), limited=False)
    return len(effects)
