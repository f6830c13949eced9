"""In which order rows are offered: a unique value is given up before it is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from atoma.contracts.replica import StagedRow
from atoma.contracts.values import RowImage
from atoma.mutations import RowKey
from atoma.ports.local import LocalTx
from atoma.query.indexes import unique_values
from atoma.schema.indexes import Index
from atoma.schema.spec import Schema

_Value: TypeAlias = tuple[str, Index, tuple[object, ...]]
"""A store, a unique index, and what a row has there."""


def freeing_first(tx: LocalTx, rows: Sequence[StagedRow]) -> list[StagedRow]:
    """``rows`` so that a row which gives a unique value up comes before the one that takes it; else as they are.

    Rows that have exchanged values wait for one another: of these the first one that is met stays in front, and the hub refuses
    what it has to refuse.

    Args:
        tx: The open transaction; the confirmed images are those of the hub already.
        rows: Rows of one scope as they are to become.
    """
    givers: dict[_Value, StagedRow] = {}
    for row in rows:
        wanted = set(_unique_values(tx.schema, row, row.image))
        for value in _unique_values(tx.schema, row, tx.base.read(row.store, row.id).image):
            if value not in wanted:
                givers[value] = row
    if not givers:
        return list(rows)
    ordered: dict[RowKey, StagedRow] = {}
    for first in rows:
        waiting = {} if (first.store, first.id) in ordered else {(first.store, first.id): first}
        while waiting:
            key, row = next(reversed(waiting.items()))
            before = _giver(tx.schema, row, givers, ordered, waiting)
            if before is None:
                ordered[key] = waiting.pop(key)
            else:
                waiting[before.store, before.id] = before
    return list(ordered.values())


def _giver(
    schema: Schema,
    row: StagedRow,
    givers: dict[_Value, StagedRow],
    ordered: dict[RowKey, StagedRow],
    waiting: dict[RowKey, StagedRow],
) -> StagedRow | None:
    """A row that has to come before ``row`` and is neither there yet nor waiting for it."""
    for value in _unique_values(schema, row, row.image):
        giver = givers.get(value)
        if giver is not None and (giver.store, giver.id) not in ordered and (giver.store, giver.id) not in waiting:
            return giver
    return None


def _unique_values(schema: Schema, row: StagedRow, image: RowImage | None) -> Iterator[_Value]:
    """What ``row`` has under each unique index of its store when it is ``image``."""
    if image is not None:
        for index, values in unique_values(schema.store(row.store), row.id, image):
            yield row.store, index, values
