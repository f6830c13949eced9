"""What opening a file repairs: volatile mutations belong to a program that is gone, so they are taken back."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from atoma.mutations import rebase_rows
from atoma_stores.sqlite._units import EngineTx


def roll_back_volatile(tx: EngineTx) -> int:
    """Take every volatile mutation out and rebuild the rows it touched; returns how many there were."""
    volatile = tx.outbox.volatile()
    touched = set(tx.outbox.remove({mutation.lsn: None for mutation in volatile}))
    rebase_rows(tx, sorted(row for row in touched if row[0] in tx.schema.stores))
    return len(volatile)
