"""Keyset cursors: an opaque text that stands for a row in an order, and leads on from it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec.structs import replace

from atoma.contracts.query import BoundQuery, Named, Param, Plan, Seek
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.query.compiled import Getter, compiled
from atoma.query.describe import describe_order, describe_sources
from atoma.query.evaluate import Evaluation
from atoma.query.literals import as_stored
from atoma.query.normal import with_values
from atoma.query.walk import expressions

R = TypeVar("R")


class KeysetPosition(msgspec.Struct, frozen=True):
    """A row of an answer by what it is sorted by.

    Attributes:
        values: The values of its sort keys.
    """

    values: tuple[object, ...]


class Cursors:
    """The cursors of the rows that answer one checked query: made ready once, for as many rows as are asked about.

    Those of a query whose order has no parameters are those of its plan, whatever it is asked with.
    """

    __slots__ = ("_heading", "_query", "_values")

    def __init__(self, query: BoundQuery) -> None:
        self._query = query
        self._heading = (describe_sources(query.plan), describe_order(query))
        self._values: Sequence[Getter] | None = None

    def of(self, row: object) -> str:
        """The cursor that stands for ``row``, a row of the answer, in the order of the query.

        It is ``""`` where the row does not tell its place: where it has columns, and what it is sorted by is none of them.
        """
        query = self._query
        if query.plan.include and isinstance(row, tuple):
            row = cast("tuple[object, ...]", row)[0]
        if isinstance(row, StoredRow):
            return self._encode(self._keys(row))
        if isinstance(row, KeysetPosition):
            return self._encode(row.values)
        cells = cast("tuple[Any, ...]", row)
        if query.plan.columns is None:
            evaluation = Evaluation({}, query.params)
            return self._encode([evaluation.value(each.expr, (cells,), ()) for each in query.plan.order])
        plan = with_values(query)  # so that equal expressions are equal, wherever their values stand
        places = {named.expr: at for at, named in enumerate(plan.columns or ())}
        keys = [places.get(each.expr) for each in plan.order]
        return "" if None in keys else self._encode([cells[at] for at in keys if at is not None])

    def _keys(self, row: StoredRow) -> Sequence[object]:
        if self._values is None:
            self._values = [compiled(order.expr, self._query.params) for order in self._query.plan.order]
        return [value(row) for value in self._values]

    def _encode(self, values: Sequence[object]) -> str:
        raw = msgspec.msgpack.encode((*self._heading, values))
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def cursor_of(query: BoundQuery, row: object) -> str:
    """The cursor that stands for ``row`` among the rows of ``query``; see :meth:`Cursors.of`."""
    return Cursors(query).of(row)


def orders_alone(plan: Plan) -> bool:
    """Whether the order of ``plan`` is the same whatever it is asked with: no parameter stands in it."""
    return not any(isinstance(expr, Param) for order in plan.order for expr in expressions(order.expr))


def with_keys(plan: Plan) -> Plan:
    """A checked plan whose columns, where it has some, end with what its rows are sorted by and do not show."""
    if plan.columns is None:
        return plan
    shown = {named.expr for named in plan.columns}
    hidden = [order.expr for order in plan.order if order.expr not in shown]
    taken = {named.name for named in plan.columns}
    columns = list(plan.columns)
    for number, expr in enumerate(hidden):
        name = f"k{number}"
        while name in taken:
            name += "_"
        columns.append(Named(name, expr))
    return replace(plan, columns=tuple(columns)) if hidden else plan


def decode_cursor(cursor: str, query: BoundQuery) -> tuple[object, ...]:
    """The values of the sort keys that ``cursor`` holds.

    Raises:
        QueryError: It is damaged, or belongs to a query of other rows, or with another order; says whose it is.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        sources, names, values = msgspec.msgpack.decode(raw, type=tuple[str, list[str], list[object]])
    except (ValueError, msgspec.DecodeError):
        raise QueryError(_DAMAGED, hint=_WHERE_FROM) from None
    own = (describe_sources(query.plan), describe_order(query))
    if (sources, names) != own:
        raise QueryError(
            f"the cursor belongs to {_whose(sources, names)}, and this is {_whose(*own)}", hint=_WHERE_FROM
        )
    if len(values) != len(query.plan.order):
        raise QueryError(_DAMAGED, hint=_WHERE_FROM)
    for value in values:
        if value is not None and not isinstance(value, (bool, int, float, str, bytes)):
            raise QueryError(_DAMAGED, hint=_WHERE_FROM)
    return tuple(values)


_DAMAGED = "the cursor is damaged"
_WHERE_FROM = "take it from a page of the same query"


def _whose(sources: str, order: Sequence[str]) -> str:
    return f"a query of {sources[:200]} ordered by {', '.join(order)[:200]}"


def seek(plan: Plan, values: Sequence[object], *, forward: bool = True) -> Plan:
    """``plan``, to be checked, going on behind the row whose sort keys are ``values``."""
    return replace(plan, seek=Seek(tuple(map(as_stored, values)), forward))


def page_of(plan: Plan, found: Sequence[R]) -> tuple[Sequence[R], bool]:
    """The page of ``plan``, and whether its result goes on.

    Args:
        plan: The plan.
        found: What it has found, from its cursor on, with one row beyond its limit where there are more.
    """
    more = plan.limit is not None and len(found) > plan.limit
    page = found[: plan.limit] if more else found
    return page[::-1] if plan.backward else page, more
