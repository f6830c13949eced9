"""The rows of an answer as the program gets them: models, decoded values, tuples and classes made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from atoma.contracts.query import Include, Plan, Source, Store
from atoma.query.check import Checker
from atoma.query.literals import kind_named
from atoma.query.parts import Children, From, MakeRow, Parts
from atoma.query.relating import of_parent
from atoma.query.scope import Stores, Typed, TypedColumns
from atoma.schema.kinds import Decode

Reader: TypeAlias = Callable[[Any], Any]
"""Takes a row of an answer, or a part of one; gives what the program gets."""
ReadAll: TypeAlias = Callable[[Sequence[Any]], tuple[Any, ...]]
"""Takes the rows of an answer; gives what the program gets for each."""


def decoder(typed: Typed) -> Decode | None:
    """How a value of that expression becomes the one of its field; None when they are the same."""
    if typed.field is not None and typed.field.type == typed.kind:
        decode = typed.field.decode
    elif typed.kind == "json":
        decode = msgspec.json.decode
    else:
        kind = kind_named(typed.kind)
        decode = None if kind is None else kind.decode
    if decode is None or not typed.nullable:
        return decode
    return lambda value: None if value is None else decode(value)


def reader_of(parts: Parts, plan: Plan, columns: TypedColumns, stores: Stores) -> Reader:
    """How the rows of ``plan``, which ``parts`` became when they were checked, are read.

    Args:
        parts: The query as it was written.
        plan: It, checked.
        columns: The columns of ``plan``; those that nobody asked for come last and are left out.
        stores: Finds a store by its name.
    """
    if parts.include:
        own = reader_of(replace(parts, include=()), plan, columns, stores)
        return _with_children(own, parts, plan, stores)
    if parts.columns is not None:
        return _of_columns(parts.make, list(columns.values())[: len(parts.columns)])
    if len(parts.sources) == 1:
        return _source(parts.sources[0], plan.source, stores)
    cells = [_or_missing(_source(*each, stores)) for each in zip(parts.sources, plan.sources, strict=True)]
    return lambda row: tuple([read(cell) for read, cell in zip(cells, row, strict=True)])


def all_reader_of(parts: Parts, plan: Plan, read: Reader, stores: Stores) -> ReadAll:
    """How all rows of an answer to ``plan`` are read, each of which :func:`reader_of` would read as ``read`` does."""
    if plan.whole_rows:
        return (parts.sources[0].spec or stores(plan.store)).read_rows
    return lambda rows: tuple(map(read, rows))


def _of_columns(make: MakeRow | None, typed: Sequence[Typed]) -> Reader:
    """How tuples of stored values become what ``make`` makes of them, a value where there is one column, or a tuple."""
    decoders = [decoder(each) for each in typed]
    if make is None and len(typed) == 1:
        return _of_one(decoders[0])
    count, given = len(typed), [(at, decode) for at, decode in enumerate(decoders) if decode is not None]

    def read(row: tuple[Any, ...]) -> Any:
        values = row[:count]
        if given:
            changed = list(values)
            for at, decode in given:
                changed[at] = decode(changed[at])
            values = tuple(changed)
        return values if make is None else make(*values)

    return read


def _of_one(decode: Decode | None) -> Reader:
    return (lambda row: row[0]) if decode is None else lambda row: decode(row[0])


def _source(part: From, source: Source, stores: Stores) -> Reader:
    """How the row of one source is read."""
    if isinstance(source, Store):
        return (part.spec or stores(source.name)).read
    assert part.derived is not None
    return _of_plan(part.derived, source.query, stores)


def _of_plan(parts: Parts, plan: Plan, stores: Stores) -> Reader:
    """How the rows of a plan within another one are read."""
    if plan.columns is None:
        return reader_of(parts, plan, {}, stores)
    plan, columns = Checker(stores).plan(plan, ())
    return reader_of(parts, plan, columns, stores)


def _or_missing(read: Reader) -> Reader:
    """How it is read where it may be missing, because it is joined from the left."""
    return lambda row: None if row is None else read(row)


def _with_children(own: Reader, parts: Parts, plan: Plan, stores: Stores) -> Reader:
    below = [
        _children(each, include, of_parent(plan, include.kind) if include.kind else None, stores)
        for each, include in zip(parts.include, plan.include, strict=True)
    ]

    def read(row: tuple[Any, ...]) -> Any:
        parent = row[0]
        return (own(parent), *[each(parent, found) for each, found in zip(below, row[1:], strict=True)])

    return read


def _children(
    children: Children, include: Include, kind_of: Reader | None, stores: Stores
) -> Callable[[Any, Any], Any]:
    readers = {
        branch.kind: _of_plan(parts, branch.query, stores)
        for parts, branch in zip(children.parts, include.branches, strict=True)
    }

    def read(parent: Any, found: Any) -> Any:
        reader = readers.get(None if kind_of is None else kind_of(parent))
        if include.one:
            return None if found is None or reader is None else reader(found)
        return () if reader is None else tuple([reader(each) for each in found])

    return read
