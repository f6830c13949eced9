"""In which order rows are offered, and which together: a unique value is given up before it is taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from atoma.contracts.replica import LostRow, StagedRow
from atoma.contracts.values import RowImage, RowKey
from atoma.ports.local import LocalTx
from atoma.query.indexes import unique_values
from atoma.schema.indexes import Index
from atoma.schema.schema import Schema

R = TypeVar("R", StagedRow, LostRow)
_Value: TypeAlias = tuple[str, Index, tuple[object, ...]]
"""A store, a unique index, and what a row has there."""


def units(tx: LocalTx, rows: Sequence[R]) -> list[list[R]]:
    """``rows`` so that one which gives a unique value up comes before the one that takes it; else as they are.

    Rows that have exchanged values wait for one another, and no order of them would do: they are one unit, whose values are
    all given up before any is taken. Every other row is a unit of its own.

    Args:
        tx: The open transaction; the confirmed images are those of the hub already.
        rows: Rows of one scope as they are to become, each of them once.
    """
    givers = _givers(tx, rows)
    if not givers:
        return [[row] for row in rows]
    return _Circles(tx.schema, givers).of(rows)


def held_up(tx: LocalTx, rows: Sequence[R], held: Collection[RowKey]) -> set[RowKey]:
    """``held``, and those of ``rows`` that cannot become what they are to before one of these has given a unique value up."""
    givers, found = _givers(tx, rows), set(held)
    grown = bool(givers)
    while grown:
        before = len(found)
        for row in rows:
            wanted = _unique_values(tx.schema, row, row.image)
            if any(_key(givers[value]) in found for value in wanted if value in givers):
                found.add(_key(row))
        grown = len(found) > before
    return found


def _givers(tx: LocalTx, rows: Sequence[R]) -> dict[_Value, R]:
    """Which of ``rows`` gives up a unique value that it has at the hub."""
    givers: dict[_Value, R] = {}
    for row in rows:
        wanted = set(_unique_values(tx.schema, row, row.image))
        for value in _unique_values(tx.schema, row, tx.base.read(row.store, row.id).image):
            if value not in wanted:
                givers[value] = row
    return givers


class _Circles(Generic[R]):
    """A search for rows that wait for one another (Tarjan): a row is left once all that it waits for have been."""

    def __init__(self, schema: Schema, givers: Mapping[_Value, R]) -> None:
        self._schema = schema
        self._givers: Mapping[_Value, R] = givers
        self._met: dict[RowKey, int] = {}
        self._earliest: dict[RowKey, int] = {}
        self._open: dict[RowKey, R] = {}

    def of(self, rows: Sequence[R]) -> list[list[R]]:
        """The rows in their order; those that wait for one another are together."""
        found: list[list[R]] = []
        for first in rows:
            if _key(first) not in self._met:
                found += self._from(first)
        return found

    def _from(self, first: R) -> Iterator[list[R]]:
        path = [(first, self._enter(first))]
        while path:
            row, before = path[-1]
            key = _key(row)
            giver = next(before, None)
            if giver is None:
                path.pop()
                if path:
                    above = _key(path[-1][0])
                    self._earliest[above] = min(self._earliest[above], self._earliest[key])
                if self._earliest[key] == self._met[key]:
                    yield self._leave(key)
            elif _key(giver) not in self._met:
                path.append((giver, self._enter(giver)))
            elif _key(giver) in self._open:
                self._earliest[key] = min(self._earliest[key], self._met[_key(giver)])

    def _enter(self, row: R) -> Iterator[R]:
        """Note that ``row`` was met; the rows that have to give something up for it."""
        key = _key(row)
        self._met[key] = self._earliest[key] = len(self._met)
        self._open[key] = row
        wanted = _unique_values(self._schema, row, row.image)
        return (giver for value in wanted if (giver := self._givers.get(value)) is not None and _key(giver) != key)

    def _leave(self, key: RowKey) -> list[R]:
        """The rows that were met since ``key``, that one included: each of them waits for it."""
        unit: list[R] = []
        while not unit or _key(unit[-1]) != key:
            unit.append(self._open.popitem()[1])
        return unit[::-1]


def _key(row: StagedRow | LostRow) -> RowKey:
    return row.store, row.id


def _unique_values(schema: Schema, row: StagedRow | LostRow, image: RowImage | None) -> Iterator[_Value]:
    """What ``row`` has under each unique index of its store when it is ``image``."""
    if image is not None:
        for index, values in unique_values(schema.store(row.store), row.id, image):
            yield row.store, index, values
