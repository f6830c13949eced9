"""Queries as they were written, by their shape: where they differ in the values beside columns alone, one is checked for all.

A program writes ``select(CARDS).where(lane == name).limit(50)`` where it asks, and so anew each time. Such a query of whole rows of
one store is found by its shape, and only its values are looked at: by the same rule of their field as in a query that is checked.
Whatever is less common, and every value that changes more than itself (text with NUL, a long one), is checked as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from atoma.contracts.query import AS_WRITTEN, BoundQuery, Call, Col, Expr, Lit, Param, Plan
from atoma.errors import ValidationError
from atoma.query.decoding import ReadAll, Reader
from atoma.query.parts import OrderKey, Parts
from atoma.query.spelling import MIRRORED
from atoma.query.walk import expressions
from atoma.schema.expressions import SortKey
from atoma.schema.kinds import Encode
from atoma.schema.spec import StoreSpec

TEMPLATES_MAX = 1_024
SHAPE_VALUES_MAX = 16
LONG = 1_000
"""Texts of more characters, and as many bytes, are held against the bounds of a whole query."""

_JOINING = frozenset({"and", "or", "not"})
Compared: TypeAlias = tuple[str, str]
"""A comparison and its column."""


class Template(msgspec.Struct, frozen=True):
    """A query that was checked, to be asked with other values.

    Attributes:
        spec: The store.
        plan: The plan in normal form.
        takes: For each of its values, which one of those that were written it is, and the rule of its field.
        read: Makes what the program gets of a row of the answer.
        read_all: Makes it of each row.
    """

    spec: StoreSpec[Any]
    plan: Plan
    takes: tuple[tuple[int, Encode], ...]
    read: Reader
    read_all: ReadAll

    def asked_with(self, values: Sequence[object]) -> BoundQuery | None:
        """The query with ``values``, as they were written; None where it has to be checked as a whole."""
        params: list[object] = []
        for at, stored_as in self.takes:
            try:
                stored = stored_as(values[at])
            except ValidationError:
                return None  # who checks the whole says where it stands
            if isinstance(stored, (str, bytes)) and not _is_plain(stored):
                return None
            params.append(stored)
        return BoundQuery(self.plan, tuple(params))


class QueryShape(msgspec.Struct, frozen=True):
    """What was written, without its values.

    Attributes:
        key: It; equal where what was written is equal but for the values.
        spec: The store.
        compared: Each comparison with a value, in the order in which they were written.
        values: Their values.
    """

    key: tuple[object, ...]
    spec: StoreSpec[Any]
    compared: Sequence[Compared]
    values: Sequence[object]

    def template(self, query: BoundQuery, read: Reader, read_all: ReadAll) -> Template | None:
        """What ``query``, which was checked, is for all of this shape; None where its values decide about more than themselves.

        Conditions are brought into one order, and equal ones stand once. As long as no column stands twice in the same comparison,
        neither depends on values.
        """
        places = {pair: at for at, pair in enumerate(self.compared)}
        if len(places) < len(self.compared) or len(query.params) != len(self.compared):
            return None
        takes: dict[int, tuple[int, Encode]] = {}
        for expr in () if query.plan.where is None else expressions(query.plan.where):
            if isinstance(expr, Call) and len(expr.args) == 2:
                column, value = expr.args
                if isinstance(column, Col) and isinstance(value, Param) and (expr.fn, column.name) in places:
                    at = places[expr.fn, column.name]
                    takes[value.index] = at, self.spec.fields[column.name].literal
        if sorted(takes) != list(range(len(query.params))):
            return None
        return Template(self.spec, query.plan, tuple([takes[at] for at in range(len(takes))]), read, read_all)


def shape_of(parts: Parts) -> QueryShape | None:
    """The shape of a query that is no more than some rows of one store; None of another one."""
    sources = parts.sources
    source = sources[0]
    name, spec = source.name, source.spec
    if spec is None or len(sources) > 1 or parts.columns is not None or parts.include:
        return None
    if parts.group or parts.having or parts.distinct:
        return None
    key: list[object] = [name, spec.name, source.include_deleted, parts.limit, parts.offset, len(parts.where)]
    compared: list[Compared] = []
    values: list[object] = []
    for term in parts.where:
        node = term.of_one(name)
        if node is None or not _taken_apart(node, key, compared, values):
            return None
    if len(values) > SHAPE_VALUES_MAX:
        return None
    for each in parts.order:
        sorted_by = each if type(each) is str else _sorted_by(name, each)
        if sorted_by is None:
            return None
        key.append(sorted_by)
    return QueryShape(tuple(key), spec, compared, values)


def _taken_apart(node: Expr, key: list[object], compared: list[Compared], values: list[object]) -> bool:
    """Add the comparisons in ``node`` to these; False where it is made of anything but comparisons of a column with a value."""
    left = [node]
    while left:
        node = left.pop()
        if type(node) is not Call:
            return False
        fn, args = node.fn, node.args
        if fn in _JOINING:
            key += fn, len(args)
            left.extend(args)
            continue
        if fn not in MIRRORED or len(args) != 2:
            return False
        column, value = args
        if type(column) is not Col or type(value) is not Lit or value.type != AS_WRITTEN:
            return False
        pair = fn, column.name
        key.append(pair)
        compared.append(pair)
        values.append(value.value)
    return True


def _sorted_by(source: str, key: OrderKey) -> str | tuple[str, bool] | None:
    """What tells one sort key from others; None of one that is no column."""
    if isinstance(key, str):
        return key
    term, descending = (key.expression, key.descending) if isinstance(key, SortKey) else (key, False)
    node = term.of_one(source)
    return (node.name, descending) if isinstance(node, Col) else None


def _is_plain(stored: str | bytes) -> bool:
    """Whether it decides about nothing but itself."""
    return len(stored) <= LONG and (isinstance(stored, bytes) or "\x00" not in stored)
