"""Results of other shapes than rows of one store, as they travel.

A row of a store is a list: the number of its columns in the header, id, version, sequence, scope, and its values. A result
of columns is their values, and so is a row of a derived table; rows of several sources are a list of them, null for one that
is missing; a row with children is a list of the row and, for each include, its child or null, or the list of its children,
which may have children, too. A row or a child of which columns were asked for is their values, and so is a group of children.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from atoma.contracts.query import Derived, Include, Named, Plan, Source
from atoma.contracts.values import StoredRow
from atoma.errors import ProtocolError
from atoma_transports.protocol.operations import scalar, unpack_row

ColumnHeader: TypeAlias = tuple[tuple[str, ...], ...]
Tuples: TypeAlias = tuple[tuple[object, ...], ...]


def pack_tuples(tuples: Tuples) -> tuple[Tuples, ColumnHeader]:
    """``tuples``, and the columns of the rows in them, said once."""
    numbers: dict[tuple[str, ...], int] = {}

    def packed(value: object) -> object:
        if isinstance(value, StoredRow):
            columns = tuple(value.image)
            number = numbers.setdefault(columns, len(numbers))
            return (number, value.id, value.version, value.seq, value.scope, *value.image.values())
        if isinstance(value, tuple):
            return tuple(map(packed, cast("tuple[object, ...]", value)))
        return value

    return tuple([cast("tuple[object, ...]", packed(each)) for each in tuples]), tuple(numbers)


def unpack_tuples(plan: Plan, tuples: Tuples, header: ColumnHeader) -> Tuples:
    """The rows of the result of ``plan`` that :func:`pack_tuples` packed.

    Raises:
        ProtocolError: They are of another shape.
    """
    if any(len(set(columns)) != len(columns) for columns in header):
        raise ProtocolError("a column is named twice")
    reading = _Reading(header)
    if plan.include:
        return tuple([reading.with_children(each, plan) for each in tuples])
    if plan.columns is not None:
        return tuple([_scalars(each, plan.columns) for each in tuples])
    if plan.joins:
        return tuple([reading.joined(each, plan.sources) for each in tuples])
    if isinstance(plan.source, Derived):
        return tuple([_values(each, plan.source) for each in tuples])
    return tuple([reading.with_children(each, plan) for each in tuples])


class _Reading:
    def __init__(self, header: ColumnHeader) -> None:
        self._header = header

    def row(self, value: object) -> StoredRow:
        number, *rest = _list(value) or [None]
        if type(number) is not int or not 0 <= number < len(self._header):
            raise ProtocolError("a row does not say which columns it has")
        return unpack_row(self._header[number], rest)

    def joined(self, value: object, sources: Sequence[Source]) -> tuple[object, ...]:
        cells = _of_length(value, len(sources))
        return tuple([self._cell(cell, source) for cell, source in zip(cells, sources, strict=True)])

    def _cell(self, value: object, source: Source) -> object:
        if value is None:
            return None
        return _values(value, source) if isinstance(source, Derived) else self.row(value)

    def with_children(self, value: object, plan: Plan) -> tuple[object, ...]:
        row, *children = _of_length(value, 1 + len(plan.include))
        found = [self._children(each, include) for each, include in zip(children, plan.include, strict=True)]
        return (self.row(row) if plan.columns is None else _scalars(row, plan.columns), *found)

    def _children(self, value: object, include: Include) -> object:
        if include.one:
            return None if value is None else self._child(value, include)
        return tuple([self._child(each, include) for each in _list(value)])

    def _child(self, value: object, include: Include) -> object:
        first = include.branches[0].query
        if first.columns is not None:  # of variants there are none
            return self.with_children(value, first) if first.include else _scalars(value, first.columns)
        given = _list(value)
        bare = bool(given) and type(given[0]) is int  # a row begins with a number, a row with children with a row
        for branch in include.branches:
            below = branch.query.include
            if bare and not below:
                return self.row(given)
            if not bare and below and len(given) == 1 + len(below):
                return self.with_children(given, branch.query)
        raise ProtocolError(f"a child of include {include.name!r} has another shape than was asked for")


def _values(value: object, source: Derived) -> tuple[object, ...]:
    return _scalars(value, source.query.columns or ())


def _scalars(value: object, columns: Sequence[Named]) -> tuple[object, ...]:
    return tuple(map(scalar, _of_length(value, len(columns))))


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, (list, tuple)):
        raise ProtocolError("a result holds a value where there should be a list")
    return cast("Sequence[object]", value)


def _of_length(value: object, length: int) -> Sequence[object]:
    found = _list(value)
    if len(found) != length:
        raise ProtocolError(f"a row of a result has {len(found)} parts, {length} were asked for")
    return found
