"""Operations on rows and the units that they form, as used by local writes, the overlay, the outbox and the hub.

Visible state = confirmed base + pending mutations in local order. See ``docs/explanation/overlay.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import msgspec

from atoma.contracts.boots import BootedPlace
from atoma.contracts.values import RowImage, Scalar

if TYPE_CHECKING:
    Columns: TypeAlias = RowImage
    Operand: TypeAlias = Scalar
else:
    Columns = dict[str, object]
    Operand = object
    """What is decoded may hold anything: a hub checks each value against its column, a device has checked what it wrote."""

OpKind: TypeAlias = Literal["create", "patch", "replace", "upsert", "delete"]
KIND_OF: Mapping[str, OpKind] = MappingProxyType(
    {"insert": "create", "update": "patch", "upsert": "upsert", "delete": "delete"}
)
"""The kinds of operations, by the words that other programs use."""
PendingKind: TypeAlias = Literal["outbox", "held", "volatile"]

QUEUED, ACKED = 0, 1
"""Values of ``PendingMutation.status``."""
HELD_MID = -1
"""The number of a mutation that is held: it gets one when it is released."""
BUILDS_ON_HELD = "it builds on a write that is held"
"""The reason of a mutation that is held although nobody has held it by hand."""


EditKind: TypeAlias = Literal["inc", "add", "remove", "max", "min", "text"]
EDIT_KINDS: tuple[EditKind, ...] = get_args(EditKind)


class Edit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A change of one column relative to its present value, so that it merges with changes of others.

    Attributes:
        field: The column.
        kind: ``inc`` adds a number, ``add`` and ``remove`` elements to and from a set, ``max`` and ``min`` keep the larger
            and the smaller value, ``text`` joins the state of a text with another one.
        operand: The amount, the elements, or the other value, as a value of the column.
    """

    field: str
    kind: EditKind
    operand: Operand


class Op(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One operation on one row: the same value from the caller's write to the hub's decision.

    Change it by ``msgspec.structs.replace`` only, so that every field is kept. Fields are appended, with a
    default: bytes that lack them can be read, and peers that do not know them ignore them.

    Attributes:
        kind: ``create`` the id must be free, ``patch`` changed columns only, the id must exist, ``replace`` the whole row,
            ``upsert`` merge into the row or create it, ``delete``.
        store: Store name.
        id: Row id; ``""`` for a create whose id the hub draws.
        values: Columns to set, without the id: all of them for create and replace, the changed ones for patch and upsert,
            none for delete.
        defaults: For upsert: the columns to add when there is no row yet.
        after_mid: In the outbox: this client's previous pending mutation on the row, 0 for none: if that one was rejected, so
            is this one.
        cas: In the outbox: reject the mutation if anybody else changed the row since ``base_seq``, whatever the store's rule.
        scope: Scope of the row; ``""`` means "the scope of the row that is there", or the one that its columns name. Inside
            a mutation it is always ``""``: the mutation has it.
        base_version: Version the caller saw where the operation is decided; another one is a conflict, 0 means that there
            must not be a row. Inside a mutation it is None, and ``cas`` stands for it.
        edits: For patch and upsert: what is done to columns of the row that is there; one edit of a column for each kind,
            and none of a column in ``values``. A hub of before passes over them, so they are sent to none.
    """

    kind: OpKind
    store: str
    id: str
    values: Columns = {}
    defaults: Columns = {}
    after_mid: int = 0
    cas: bool = False
    scope: str = ""
    base_version: int | None = None
    edits: tuple[Edit, ...] = ()

    @property
    def awaits_id(self) -> bool:
        """Whether it creates a row whose id the hub has yet to draw."""
        return not self.id and self.kind == "create"


class Origin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The original identity of a mutation, which it keeps for ever: its client, its number there, and the digest after it."""

    client_id: bytes
    mid: int
    digest: bytes


PROOF_BYTES = 16
"""Of the hub's proof that a scope was somewhere; what is behind them says by which boots it had come there."""


class Recovers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The mark of a mutation that offers what the hub has lost: a row as it was at a position of the lost history.

    Attributes:
        epoch: The epoch in which the client was there; offers of one epoch are ordered by ``seq``.
        seq: The client's cursor in the lost history; without a proof, where that history was left.
        hash: The lineage hash there.
        proof: The hub's proof that the scope was there once, see :attr:`PullReply.proof`, and behind it the boots of the hub that had
            led there; empty in a file from before proofs.
        last: Whether everything that the client offers has come: the mutation has no operations.
    """

    epoch: bytes
    seq: int
    hash: bytes
    proof: bytes
    last: bool = False

    @property
    def position(self) -> int:
        """Where it stands among the offers of its epoch; 0, before all others, while nothing proves where it is from."""
        return self.seq if self.proof else 0

    @property
    def witness(self) -> BootedPlace:
        """Where the client was, and by which boots of the hub the scope had come there."""
        return BootedPlace(self.seq, self.proof[PROOF_BYTES:])


class MutationBody(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The part that is encoded once, at the write, and never again (digests are over these bytes).

    Attributes:
        mid: Number of the mutation, dense from 1 per client.
        idem: Idempotency key.
        scope: The one scope it touches.
        base_seq: Cursor of that scope at the local commit: what the user had seen.
        schema_version: Version of the client's schema.
        client_ms: Wall clock of the client, for display only.
        ops: Atomic list of operations.
        base_epoch: Epoch of that cursor, which says in which history ``base_seq`` is a number; empty before first
            contact, and in mutations that older versions wrote.
        origin: For a mutation that was numbered anew: what it was called before. It has at most one effect under either.
        doubtful: Whether it may have been decided long ago: it is only taken if nobody has touched its rows since its
            base, or if they are as it would make them.
        recovers: For an offer: where in the lost history the row was like that. ``base_seq`` is where that history
            begins.
    """

    mid: int
    idem: str
    scope: str
    base_seq: int
    schema_version: int
    client_ms: int
    ops: tuple[Op, ...]
    base_epoch: bytes = b""
    origin: Origin | None = None
    doubtful: bool = False
    recovers: Recovers | None = None


class BaseRow(msgspec.Struct, frozen=True, gc=False):
    """The confirmed image of a row.

    Attributes:
        image: Column values, None when the row is not there at the hub.
        seq: Hub sequence of that image, 0 when unknown.
        scope: Scope of the row.
        shadowed: True when the row has pending mutations, so that its base lies beside the visible row.
    """

    image: RowImage | None
    seq: int
    scope: str
    shadowed: bool


class PendingMutation(msgspec.Struct, frozen=True, gc=False):
    """One mutation of the overlay; the rows of kind ``outbox`` are the outbox.

    Attributes:
        lsn: Local order, never reused.
        kind: ``outbox`` is durable and goes to the hub, ``held`` is durable and stays here until it is released, ``volatile``
            waits for a direct remote answer.
        mid: Mutation number towards the hub, ``HELD_MID`` for held ones, 0 for volatile ones.
        idem: Idempotency key, unique.
        scope: The one scope it touches.
        base_seq: Cursor of that scope when it was written: what the user had seen.
        body: Encoded :class:`MutationBody`; immutable.
        digest: Digest chain after this mutation.
        status: ``QUEUED`` or ``ACKED`` (the hub applied it as ``ack_seq``, the page is still to come).
        ack_seq: Hub sequence, 0 until acked.
        attempts: How often it was sent.
        next_attempt_ms: Wall-clock time of the next attempt, 0 for now.
        last_error: What the last attempt failed with; of a held one, why it is held.
        local: What it does here, where the body does not say it: the same in terms of today's schema, or with a prediction of
            what the hub will set. Never sent.
    """

    lsn: int
    kind: PendingKind
    mid: int
    idem: str
    scope: str
    base_seq: int
    body: bytes
    digest: bytes
    status: int = QUEUED
    ack_seq: int = 0
    attempts: int = 0
    next_attempt_ms: int = 0
    last_error: str = ""
    local: bytes = b""

    @property
    def meaning(self) -> bytes:
        """The encoded :class:`MutationBody` that says what it does to the rows of this file."""
        return self.local or self.body


class Effect(msgspec.Struct, frozen=True, gc=False):
    """The effect of one operation on one row.

    Attributes:
        op: The operation.
        scope: Scope of the row.
        pre: Visible image before, None when there was no row.
        post: Visible image after, None when the row is gone.
        index: Position of the operation in its unit.
    """

    op: Op
    scope: str
    pre: RowImage | None
    post: RowImage | None
    index: int = 0
