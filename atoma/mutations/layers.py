"""Layers over the confirmed base, in an open local transaction: lay one, take it out, put the authority's image under.

Nothing here decides when; whoever sends the units does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from atoma.contracts.execution import WriteItemResult, WriteRequest
from atoma.contracts.mutations import Effect, MutationBody, Op, PendingMutation
from atoma.contracts.values import ErrorInfo, RowImage, RowKey, is_gone
from atoma.contracts.versions import NEVER
from atoma.errors import ConflictError, ValidationError
from atoma.mutations.deciding import decide, moved_read, mutations_of, queued, replay, rows_of, scope_of
from atoma.mutations.overlay import rebase_rows, version_here
from atoma.mutations.stamping import prepared
from atoma.ports.local import LocalTx
from atoma.schema.bodies import encode_body

BaseVersions: TypeAlias = dict[RowKey, int | None]
"""The authority's versions of rows; None for a row that is not there."""


class Unpredictable(Exception):
    """An end of a write that this device's rows do not show: only the authority can tell."""


class Laid(msgspec.Struct, frozen=True):
    """A unit that is visible and not confirmed.

    Attributes:
        layers: Its pending mutations, in entry order; one for an atomic unit.
        items: What each entry made of its row.
        entries: The entries, as they are to be sent: with what ``before_save`` has changed.
        seen: The authority's versions of the rows whose versions it names, as they were when it was shown.
    """

    layers: tuple[int, ...]
    items: tuple[WriteItemResult, ...]
    entries: tuple[Op, ...]
    seen: BaseVersions


class Settled(msgspec.Struct, frozen=True):
    """The end that the rows of a unit have come to.

    Attributes:
        versions: The versions they have here, in entry order.
        made: The authority's versions of those that it wrote.
    """

    versions: tuple[int, ...]
    made: BaseVersions


def lay(tx: LocalTx, request: WriteRequest) -> Laid:
    """Show ``request`` and remember it as volatile mutations under its keys.

    Raises:
        Unpredictable: An entry does not fit the rows of this device; the transaction has to be rolled back.
        ValidationError: ``before_save`` refuses a row; as above.
    """
    if moved_read(request.options.reads, partial(version_here, tx)) is not None:
        raise Unpredictable
    seen = {row: _version_there(tx, row) for row in named_versions(request)}
    shown = [_show(tx, index, op, request.idem) for index, op in enumerate(request.entries)]
    mutations = mutations_of(request, [effect for effect, _ in shown])
    layers = tuple(_enqueue(tx, key, effects) for key, effects in mutations)
    return Laid(layers, tuple(item for _, item in shown), tuple(effect.op for effect, _ in shown), seen)


def _show(tx: LocalTx, index: int, op: Op, idem: str) -> tuple[Effect, WriteItemResult]:
    spec = tx.schema.store(op.store)
    decided = decide(op, spec, tx.rows.read(op.store, op.id), index)
    if isinstance(decided, ErrorInfo):
        raise Unpredictable
    effect = prepared(decided, spec, idem, tx.now_ms)
    if isinstance(effect, ErrorInfo):
        raise ValidationError(effect.message, store=op.store, field=effect.info.get("field", ""))
    try:
        version = tx.rows.put(op.store, op.id, effect.scope, effect.post)
    except (ConflictError, ValidationError):
        raise Unpredictable from None
    if spec.hooks.after_save is not None and effect.pre != effect.post:
        tx.unit.tell(effect)
    return effect, WriteItemResult(op.id, True, effect.pre != effect.post, version, effect.post, decided=False)


def _enqueue(tx: LocalTx, key: str, effects: Sequence[Effect]) -> int:
    rows, scope = rows_of(effects), effects[0].scope
    for store, id, pre in rows:
        tx.base.shadow(store, id, scope, pre)
    ops = tuple(queued(effect.op) for effect in effects)
    body = encode_body(MutationBody(0, key, scope, 0, tx.schema.version, tx.now_ms, ops), tx.schema)
    return tx.outbox.add(PendingMutation(0, "volatile", 0, key, scope, 0, body, b""), rows)


def named_versions(request: WriteRequest) -> dict[RowKey, int | None]:
    """The rows whose versions the request depends on, with the versions; the authority counts them in its own way."""
    named: dict[RowKey, int | None] = {(store, id): version for store, id, version in request.options.reads}
    for entry in request.entries:
        if entry.base_version is not None:
            named[entry.store, entry.id] = entry.base_version or None
    return named


def known_versions(tx: LocalTx, request: WriteRequest) -> BaseVersions:
    """The authority's versions of the rows that are here as the request names them."""
    named = named_versions(request)
    return {row: _version_there(tx, row) for row, version in named.items() if version_here(tx, *row) == version}


def _version_there(tx: LocalTx, row: RowKey) -> int | None:
    base = tx.base.read(*row)
    return None if is_gone(base.image) else base.seq


def address(request: WriteRequest, versions: BaseVersions) -> WriteRequest:
    """``request`` with the authority's ``versions`` in the place of this device's.

    A version that is not among them was not this device's any more when the write was entered, or never: below 0 it is the
    authority's own, of a row that it told and that is not here; any other is of a row that has moved, and may equal one of the
    authority's, so it is not sent.
    """

    def there(row: RowKey, version: int | None) -> int | None:
        if row in versions or not version:
            return versions.get(row)
        return NEVER if version > 0 else -version

    def addressed(op: Op) -> Op:
        if op.base_version is None:
            return op
        return replace(op, base_version=there((op.store, op.id), op.base_version) or 0)

    reads = tuple((store, id, there((store, id), version)) for store, id, version in request.options.reads)
    entries = tuple(addressed(op) for op in request.entries)
    return replace(request, entries=entries, options=replace(request.options, reads=reads))


def settle(tx: LocalTx, request: WriteRequest, layers: Sequence[int], items: Sequence[WriteItemResult]) -> Settled:
    """Confirm what is ok, take the layers out, and replay what is left on the rows.

    An item whose image the authority did not tell is confirmed as it was asked for.
    """
    rows: dict[RowKey, None] = {}
    made: BaseVersions = {}
    for entry, item in zip(request.entries, items, strict=True):
        row = (entry.store, entry.id)
        rows[row] = None
        if item.ok:
            _confirm(tx, entry, item)
            made[row] = _version_there(tx, row)
    rows.update(dict.fromkeys(tx.outbox.remove(dict.fromkeys(layers))))
    rebase_rows(tx, rows)
    visible = (tx.rows.read(entry.store, entry.id) for entry in request.entries)
    return Settled(tuple(0 if row is None else row.version for row in visible), made)


def _confirm(tx: LocalTx, entry: Op, item: WriteItemResult) -> None:
    base = tx.base.read(entry.store, entry.id)
    image: RowImage | None
    if item.row is not None:
        image, seq, scope = item.row, item.version, tx.schema.store(entry.store).scope_of(item.row)
    else:
        known = entry.kind == "delete" and item.changed
        image = None if known else replay(entry, base.image)
        if image is None and base.image is None and not base.shadowed:
            return  # nothing of the row was ever here, not even its scope, and nothing of it is now
        seq, scope = base.seq, base.scope or scope_of(entry, tx.schema.store(entry.store))
    if not base.shadowed:
        tx.base.shadow(entry.store, entry.id, base.scope or scope, base.image)
    tx.base.put(entry.store, entry.id, scope, image, seq)


def only_nodded(item: WriteItemResult) -> bool:
    """Whether the result is a local node's that left the row to the runtime: it says nothing about the authority."""
    return item.ok and not item.changed and item.row is None and not item.version
