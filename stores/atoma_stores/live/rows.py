"""Rows of results: what identifies them, and when two of them show the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from msgspec.structs import replace

from atoma.contracts.query import BoundQuery, Col, Expr, Plan, Store
from atoma.contracts.values import StoredRow
from atoma.ports.live import ResultKey
from atoma.query.normal import with_values
from atoma.query.walk import is_grouped

R = TypeVar("R")

KeyOf: TypeAlias = Callable[[R], ResultKey]


def by_id(row: StoredRow) -> str:
    """Return the key of a row of a store."""
    return row.id


def same(one: object, other: object) -> bool:
    """Whether both show the same; a confirmation by the hub is not a visible change."""
    if one is other:
        return True
    alike = type(one) is type(other)
    if type(one) is StoredRow and type(other) is StoredRow:
        return one.version == other.version and one.image == other.image and one.scope == other.scope
    if isinstance(one, tuple) and isinstance(other, tuple):
        left, right = cast("tuple[object, ...]", one), cast("tuple[object, ...]", other)
        return len(left) == len(right) and all(map(same, left, right))
    return alike and one == other


def keep_unchanged(known: Sequence[R], new: Sequence[R], key_of: KeyOf[R]) -> list[R]:
    """Return ``new``, reusing the known object for every row that shows the same as the known row of its key.

    The rows of stores within a row that is new or has changed are reused in the same way.
    """
    before = {key_of(row): row for row in known}
    kept = [old if (old := before.get(key_of(row))) is not None and same(old, row) else row for row in new]
    if all(type(row) is StoredRow or row is before.get(key_of(row)) for row in kept):
        return kept
    parts = _Parts(known)
    made: list[R] = []
    for row in kept:
        old = before.get(key_of(row))
        made.append(row if row is old else cast("R", parts.made_of(row, old)))
    return made


class _Parts:
    """The rows of stores that make up the rows of a result.

    Args:
        known: The rows of the result.
    """

    __slots__ = ("_every", "_known")

    def __init__(self, known: Sequence[object]) -> None:
        self._known = known
        self._every: dict[str, list[StoredRow]] | None = None

    def made_of(self, row: object, old: object) -> object:
        """Return ``row`` made of known objects, preferably those of ``old``, the row that was in its place."""
        return self._made(row, _by_id([old]))

    def _made(self, row: object, own: Mapping[str, Sequence[StoredRow]]) -> object:
        if isinstance(row, StoredRow):
            for part in own.get(row.id, ()):
                if same(part, row):
                    return part
            if self._every is None:  # most often a changed row consists of objects of the old one
                self._every = _by_id(self._known)
            return next((part for part in self._every.get(row.id, ()) if same(part, row)), row)
        if isinstance(row, tuple):
            return tuple([self._made(part, own) for part in cast("tuple[object, ...]", row)])
        return row


def _by_id(rows: Sequence[object]) -> dict[str, list[StoredRow]]:
    """Return the rows of stores within ``rows`` by their ids; of several that show the same, only one."""
    found: dict[str, list[StoredRow]] = {}
    left: list[object] = [*rows]
    while left:
        row = left.pop()
        if isinstance(row, StoredRow):
            alike = found.setdefault(row.id, [])
            if not any(same(part, row) for part in alike):  # a row that a thousand others are joined to is kept once
                alike.append(row)
        elif isinstance(row, tuple):
            left.extend(cast("tuple[object, ...]", row))
    return found


def key_of_rows(plan: Plan) -> KeyOf[Any]:
    """Return the function that makes the keys of the rows of the result of ``plan``."""
    if plan.whole_rows:
        return by_id
    if plan.include:
        key_of_parent = key_of_rows(replace(plan, include=()))
        return lambda row: key_of_parent(row[0])
    if plan.columns is None:
        return lambda row: tuple([cell.id if isinstance(cell, StoredRow) else cell for cell in row])
    if plan.distinct:
        return by_all_of_it
    unique: list[Expr] = list(plan.group)
    if not is_grouped(plan):
        if not all(isinstance(source, Store) for source in plan.sources):
            return by_all_of_it
        unique = [Col(number, "id") for number in range(len(plan.sources))]
    places = {named.expr: at for at, named in enumerate(plan.columns)}
    if any(expr not in places for expr in unique):
        return by_all_of_it
    wanted = [places[expr] for expr in unique]
    return lambda row: tuple([row[at] for at in wanted])


def tells_its_keys(query: BoundQuery) -> bool:
    """Whether the columns of ``query``, which has some, contain its sort keys, and therefore identify its rows."""
    plan = with_values(query)  # equal expressions compare equal, whatever their numbers
    return {each.expr for each in plan.order} <= {named.expr for named in plan.columns or ()}


def by_all_of_it(row: tuple[Any, ...]) -> ResultKey:
    """Return the whole row as its key, as nothing less identifies it."""
    return row
