"""What an operation does to a row: decided here for a local write, a transaction, a layer and a direct write at a hub.

What a pushed mutation does at the hub depends on what others have done since, too: that alone is
:mod:`atoma.hub.conflicts`. Both replay the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from atoma.contracts.execution import WriteRequest, mutation_key
from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Effect, Op
from atoma.contracts.values import ErrorInfo, RowImage, StoredRow, is_hidden
from atoma.mutations.editing import edited, in_edits, misfit, stated
from atoma.schema.hiding import restores
from atoma.schema.spec import StoreSpec


def decide(op: Op, store: StoreSpec[Any], row: StoredRow | None, index: int = 0) -> Effect | ErrorInfo:
    """Decide what ``op``, the operation ``index`` of its unit, does to ``row``; or why it is refused.

    The version of ``row`` is that of whoever decides: this device's, or the hub's sequence at a hub. The operation of the effect
    says what it does to columns that merge by themselves.
    """
    if row is None:
        if op.kind in ("patch", "delete"):
            return refusal("NOT_FOUND", f"store {op.store!r} has no row with id {op.id!r}")
        if op.base_version:
            message = f"{op.store}/{op.id}: version {op.base_version} was expected, the row is gone"
            return refusal("CONFLICT", message, info={"current_version": "0"})
        if store.merging.texts:
            op = stated(op, store)
        return Effect(op, scope_of(op, store), None, replay(op, None), index)
    hidden = is_hidden(row.image)
    if op.kind == "create":
        message = f"{op.store}/{op.id} exists already; update or upsert it, or choose another id"
        if hidden:
            message = f"{op.store}/{op.id} was deleted and is still kept; restore it, or choose another id"
        return refusal("CONFLICT", message)
    if hidden and op.kind == "patch" and not restores(op):
        return refusal(
            "NOT_FOUND", f"store {op.store!r} has no row with id {op.id!r}: it was deleted, and can be restored"
        )
    unseen = hidden and op.base_version == 0
    if op.base_version is not None and op.base_version != row.version and not unseen:
        message = f"{op.store}/{op.id}: version {op.base_version} was expected, it is at {row.version}; read it again"
        return refusal("CONFLICT", message, info={"current_version": str(row.version)})
    if op.scope and op.scope != row.scope:
        message = f"{op.store}/{op.id} belongs to scope {row.scope!r}, not to {op.scope!r}, and a row never moves"
        return refusal("INVALID", message)
    if store.merging.edited:
        op = in_edits(op, store, row.image)
    post = replay(op, row.image)
    if op.edits and post is not None:
        wrong = misfit(op, store, row.image, post)
        if wrong is not None:
            return wrong
    return Effect(op, row.scope, row.image, post, index)


def moved_read(
    reads: Sequence[tuple[str, str, int | None]], version_of: Callable[[str, str], int | None]
) -> ErrorInfo | None:
    """Say which of the rows that a unit depends on is not as it was read; None when all are.

    Args:
        reads: Store, id and version of the rows, None for one that was not there.
        version_of: Their versions now.
    """
    for store, id, version in reads:
        if version_of(store, id) != version:
            message = f"{store}/{id} changed since the transaction read it; run the transaction again"
            return refusal("CONFLICT", message, info={"store": store, "id": id})
    return None


def replay(op: Op, image: RowImage | None) -> RowImage | None:
    """Apply ``op`` to ``image`` and return the new image; neither is changed, and the new one may be shared with ``op``.

    The same function predicts on the device and, after conflicts are decided, applies at the hub. Replay never fails:
    a patch or delete of a row that is gone leaves it gone; a create over a row replaces it (the hub will say no, and
    until then the user sees what they wrote).
    """
    match op.kind:
        case "delete":
            return None
        case "create" | "replace":
            return op.values
        case "patch":
            return None if image is None else _merged(op, image)
        case "upsert":
            return {**op.defaults, **op.values} if image is None else _merged(op, image)


def _merged(op: Op, image: RowImage) -> RowImage:
    merged = {**image, **op.values}
    return edited(merged, op.edits) if op.edits else merged


def scope_of(op: Op, store: StoreSpec[Any]) -> str:
    """The scope in which ``op`` makes a row that is not there yet."""
    return op.scope or store.scope_of({**op.defaults, **op.values} if op.defaults else op.values)


def mutations_of(request: WriteRequest, effects: Sequence[Effect]) -> Iterator[tuple[str, Sequence[Effect]]]:
    """The effects of each mutation of a unit, with its key: one for an atomic unit or for each part of it, else one per effect."""
    for key, group in groupby(effects, lambda effect: mutation_key(request, effect.index)):
        yield key, list(group)


def rows_of(effects: Sequence[Effect]) -> list[tuple[str, str, RowImage | None]]:
    """Each row of a mutation once, with its image before the mutation."""
    if len(effects) == 1:
        return [(effects[0].op.store, effects[0].op.id, effects[0].pre)]
    rows: dict[tuple[str, str], RowImage | None] = {}
    for effect in effects:
        rows.setdefault((effect.op.store, effect.op.id), effect.pre)
    return [(store, id, pre) for (store, id), pre in rows.items()]


def queued(op: Op, after_mid: int = 0) -> Op:
    """Return ``op`` as it stands in a mutation, behind this client's mutation ``after_mid`` on the row.

    The mutation has the scope; a version of this device says nothing elsewhere, only that there was one does.
    """
    if op.base_version is not None:
        return replace(op, scope="", base_version=None, cas=True, after_mid=after_mid)
    return replace(op, scope="", after_mid=after_mid) if op.scope or after_mid else op
