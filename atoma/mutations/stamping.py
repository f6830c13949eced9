"""What is added to a write on the device that makes it, once, where it is decided: set fields, and when a row was deleted."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from atoma.contracts.mutations import Effect, Op
from atoma.contracts.values import HIDDEN, ErrorInfo, RowImage
from atoma.mutations.saving import saved, saved_elsewhere
from atoma.schema.hiding import hides, moment_of
from atoma.schema.spec import StoreSpec


def prepared(effect: Effect, store: StoreSpec[Any], idem: str, now_ms: int) -> Effect | ErrorInfo:
    """``effect`` as it is written: past ``before_save``, and with the store's set fields; or why it is refused.

    Args:
        effect: What an operation is to do on this device.
        store: The store of its row.
        idem: The key of the write.
        now_ms: This device's wall clock.
    """
    if store.soft_delete:
        effect = _timed(effect, now_ms)
    before, after = effect.pre, effect.post
    if not store.sets.names or after is None:
        return saved(effect, store, idem)
    if store.is_same(before, after):
        return replace(effect, post=before)
    passed = saved(effect, store, idem)
    if isinstance(passed, ErrorInfo) or passed.post is None:
        return passed
    if store.is_same(before, passed.post):
        return replace(passed, post=before)
    stamps = store.sets.stamped(before, store.fields, now_ms)
    return replace(passed, op=_with(passed.op, stamps, store), post={**passed.post, **stamps})


def prepared_elsewhere(op: Op, index: int, store: StoreSpec[Any], idem: str, now_ms: int) -> Op | ErrorInfo:
    """``op`` as it is sent to a machine that decides it without this one; or why it cannot be."""
    passed = saved_elsewhere(_at(op, now_ms) if store.soft_delete else op, index, store, idem)
    if isinstance(passed, ErrorInfo) or not store.sets.names or op.kind == "delete":
        return passed
    return _with(passed, store.sets.stamped(None, store.fields, now_ms), store)


def _timed(effect: Effect, now_ms: int) -> Effect:
    """``effect`` with the moment in it, if it deletes a row softly."""
    op = _at(effect.op, now_ms)
    if op is effect.op or effect.post is None:
        return effect
    return replace(effect, op=op, post={**effect.post, HIDDEN: op.values[HIDDEN]})


def _at(op: Op, now_ms: int) -> Op:
    return replace(op, values={**op.values, HIDDEN: moment_of(now_ms)}) if hides(op) else op


def bare(op: Op, store: StoreSpec[Any]) -> Op:
    """``op`` as it stands in a mutation: without what the hub sets."""
    names = store.sets.at_hub
    if names.isdisjoint(op.values) and names.isdisjoint(op.defaults):
        return op
    return replace(op, values=_without(op.values, names), defaults=_without(op.defaults, names))


def _with(op: Op, stamps: RowImage, store: StoreSpec[Any]) -> Op:
    """``op`` with ``stamps``: what a row has from its beginning only counts where the operation makes it."""
    names, updated_at = store.sets.names, store.sets.updated_at
    values, defaults = _without(op.values, names), _without(op.defaults, names)
    changed = {name: value for name, value in stamps.items() if name == updated_at}
    match op.kind:
        case "create" | "replace":
            return replace(op, values={**values, **stamps})
        case "upsert":
            return replace(op, values={**values, **changed}, defaults={**defaults, **stamps})
        case _:
            return replace(op, values={**values, **changed})


def _without(image: RowImage, names: frozenset[str]) -> RowImage:
    return {name: value for name, value in image.items() if name not in names}
