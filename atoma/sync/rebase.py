"""Visible image = confirmed base + pending operations in local order, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from atoma.contracts.codec import decode
from atoma.contracts.overlay import replay
from atoma.contracts.sync import MutationBody, Op
from atoma.contracts.values import RowImage

RowKey = tuple[str, str]
"""Store name and row id."""


def rebase(base: RowImage | None, ops: Iterable[Op]) -> RowImage | None:
    """``base`` with ``ops`` replayed on it; ``base`` itself is left as it is."""
    image = base
    for op in ops:
        image = replay(op, image)
    return image


def ops_by_row(body: bytes) -> dict[RowKey, list[Op]]:
    """The operations of an encoded mutation, by the row they are on, in order.

    Raises:
        ProtocolError: ``body`` is no encoded mutation.
    """
    found: dict[RowKey, list[Op]] = {}
    for op in decode(body, MutationBody).ops:
        found.setdefault((op.store, op.id), []).append(op)
    return found
