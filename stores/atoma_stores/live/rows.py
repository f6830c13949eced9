"""Rows of results: what tells them apart, and when one still shows what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from atoma.contracts.values import StoredRow
from atoma.ports.live import RowKey

R = TypeVar("R")

KeyOf: TypeAlias = Callable[[R], RowKey]


def by_id(row: StoredRow) -> str:
    """The key of a row of a store."""
    return row.id


def same(one: object, other: object) -> bool:
    """Whether both show the same; where the hub has confirmed a row is no change that anybody sees."""
    if one is other:
        return True
    if type(one) is StoredRow and type(other) is StoredRow:
        return one.version == other.version and one.image == other.image and one.scope == other.scope
    return type(one) is type(other) and one == other


def keep_unchanged(known: Iterable[R], new: Sequence[R], key_of: KeyOf[R]) -> list[R]:
    """``new`` with every row that shows what a known row of the same key did replaced by that very object."""
    before = {key_of(row): row for row in known}
    return [old if (old := before.get(key_of(row))) is not None and same(old, row) else row for row in new]
