"""What ``before_save`` makes of a write: the operation with what it has changed, decided before the body is made."""

from __future__ import annotations

import logging
from typing import Any

from msgspec.structs import replace

from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Effect, Op
from atoma.contracts.values import ErrorInfo, RowImage, is_gone
from atoma.errors import AtomaError, ValidationError
from atoma.mutations.deciding import replay
from atoma.mutations.editing import in_edits
from atoma.schema.hiding import hides
from atoma.schema.spec import StoreSpec

_log = logging.getLogger("atoma.hooks")


def saved(effect: Effect, store: StoreSpec[Any], idem: str) -> Effect | ErrorInfo:
    """``effect`` as it is to be written, once ``before_save`` of its store has seen the row; or why it is refused.

    A row that goes, or stays as it is, is not shown to it.

    Args:
        effect: What an operation is to do on this device.
        store: The store of its row.
        idem: The key of the write: tried again under it, the same row is not shown again.
    """
    if store.hooks.before_save is None or effect.post is None or is_gone(effect.post) or effect.post == effect.pre:
        return effect
    made = _made(effect.op, effect.post, effect.index, store, idem)
    if isinstance(made, ErrorInfo):
        return made
    changed = {name: value for name, value in made.items() if value != effect.post[name]}
    op = replace(effect.op, values={**effect.op.values, **changed})
    if store.merging.edited:
        op = in_edits(op, store, effect.pre)
    return replace(effect, op=op, post=replay(op, effect.pre) if op.edits else made)


def saved_elsewhere(op: Op, index: int, store: StoreSpec[Any], idem: str) -> Op | ErrorInfo:
    """``op`` as it is to be sent to a machine that decides it without this one; or why it cannot be.

    Only an operation that has the whole row can be shown to the hook.
    """
    if store.hooks.before_save is None or op.kind == "delete" or hides(op):
        return op
    if op.kind in ("patch", "upsert"):
        return refusal(
            "INVALID",
            f"{op.store}/{op.id}: before_save sees whole rows, and another machine has this one; give the whole row with "
            'upsert(…, apply="replace"), or write under a policy that writes on this device',
        )
    made = _made(op, op.values, index, store, idem)
    return made if isinstance(made, ErrorInfo) else replace(op, values=made)


def _made(op: Op, image: RowImage, index: int, store: StoreSpec[Any], idem: str) -> RowImage | ErrorInfo:
    """The image that the hook makes of ``image``, all columns of a row."""
    hooks, key = store.hooks, (idem, index)
    known = hooks.passed(key, image)
    if known is not None:
        return known
    assert hooks.before_save is not None
    try:
        row = hooks.before_save(store.decode(op.id, image))
        made = {**image, **store.encode_changes(store.changes_to(op.id, image, row))}
    except Exception as error:  # whatever an application's function raises refuses its write
        if not isinstance(error, AtomaError | ValueError):
            _log.exception("before_save of store %s failed on row %s", op.store, op.id)
        why = str(error) if isinstance(error, AtomaError) else f"{type(error).__name__}: {error}"
        field = error.field if isinstance(error, ValidationError) else ""
        return refusal("INVALID", f"{op.store}/{op.id}: before_save refused it: {why}", info={"field": field})
    hooks.note_passed(key, image, made)
    return made
