"""What opening a file repairs: volatile mutations belong to a program that is gone, so they are taken back."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from atoma.contracts.codec import decode
from atoma.contracts.overlay import replay
from atoma.contracts.sync import MutationBody
from atoma_stores.sqlite._units import EngineTx


def roll_back_volatile(tx: EngineTx) -> int:
    """Take every volatile mutation out and rebuild the rows it touched; returns how many there were."""
    volatile = tx.volatile()
    touched = {row for mutation in volatile for row in tx.remove_pending(mutation.lsn, None)}
    for store, id in sorted(touched):
        if store in tx.schema.stores:
            rebuild(tx, store, id)
    return len(volatile)


def rebuild(tx: EngineTx, store: str, id: str) -> None:
    """Make the visible row what its confirmed base and the pending mutations that are left say."""
    base = tx.read_base(store, id)
    if not base.shadowed:
        return
    image = base.image
    remaining = tx.pending(store, id)
    for mutation in remaining:
        for op in decode(mutation.body, MutationBody).ops:
            if (op.store, op.id) == (store, id):
                image = replay(op, image)
    visible = tx.read_row(store, id)
    scope = base.scope if visible is None else visible.scope
    tx.put_visible(store, id, scope, image)
    if not remaining:
        tx.unshadow(store, id)
