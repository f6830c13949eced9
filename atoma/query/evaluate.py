"""The meaning of a query in plain Python: SQLite's three-valued logic, order and LIKE, without SQLite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from atoma.contracts.query import And, Compare, In, IsNull, Like, Not, Or, Predicate, QuerySpec, Sort
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import QueryError

SortKey: TypeAlias = tuple[int, int | float | str | bytes]
"""``(kind, value)``: NULL < numbers < text < blobs, and by value within a kind. Text compares by code point, which is
the order of its UTF-8 bytes."""


def sort_key(value: object) -> SortKey:
    """Where ``value`` stands in SQLite's BINARY order.

    Raises:
        QueryError: No column can hold it.
    """
    if value is None:
        return 0, 0
    if isinstance(value, str):
        return 2, value
    if isinstance(value, int | float):
        return (0, 0) if isinstance(value, float) and math.isnan(value) else (1, value)
    if isinstance(value, bytes):
        return 3, value
    raise QueryError(f"a {type(value).__name__} cannot be compared with a column")


def matches(predicate: Predicate | None, id: str, image: RowImage) -> bool | None:
    """Whether a row fits: True, False, or None for SQL's unknown (which filters keep out).

    Raises:
        QueryError: The row has no such column, or an operator is unknown.
    """
    match predicate:
        case None:
            return True
        case Compare(op, name, value):
            return _compare(op, sort_key(_value(name, id, image)), sort_key(value))
        case In(name, values):
            return _among(sort_key(_value(name, id, image)), values)
        case IsNull(name):
            return sort_key(_value(name, id, image))[0] == 0
        case Like(name, pattern):
            return like(pattern, _value(name, id, image))
        case And(items):
            return _all(matches(item, id, image) for item in items)
        case Or(items):
            return _negated(_all(_negated(matches(item, id, image)) for item in items))
        case Not(item):
            return _negated(matches(item, id, image))


def _value(name: str, id: str, image: RowImage) -> object:
    if name == "id":
        return id
    try:
        return image[name]
    except KeyError:
        raise QueryError(f"a row has no field {name!r}; it has: {', '.join(('id', *image))}") from None


def _negated(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def _all(truths: Iterable[bool | None]) -> bool | None:
    unknown = False
    for truth in truths:
        if truth is False:
            return False
        unknown = unknown or truth is None
    return None if unknown else True


def _compare(op: str, left: SortKey, right: SortKey) -> bool | None:
    if left[0] == 0 or right[0] == 0:
        return None
    before, same = _before(left, right), left == right
    match op:
        case "eq":
            return same
        case "ne":
            return not same
        case "lt":
            return before
        case "le":
            return before or same
        case "gt":
            return not (before or same)
        case "ge":
            return not before
        case _:
            raise QueryError(f"unknown operator {op!r}")


def _before(left: SortKey, right: SortKey) -> bool:
    return left < right  # the kind decides first, values of one kind are comparable


def _among(left: SortKey, values: Sequence[object]) -> bool | None:
    if not values:
        return False
    if left[0] == 0:
        return None
    keys = [sort_key(value) for value in values]
    if left in keys:
        return True
    return None if any(key[0] == 0 for key in keys) else False


def like(pattern: str, text: object) -> bool | None:
    r"""SQLite's ``text LIKE pattern ESCAPE '\'``.

    ``%`` is any text, ``_`` one code point, ASCII letters compare without case, and both sides end at a NUL.

    Raises:
        QueryError: ``text`` is no text.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise QueryError("like needs a text field")
    return _fits(_tokens(pattern.partition("\x00")[0]), _fold(text.partition("\x00")[0]))


_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_ANY, _ONE, _NEVER = object(), object(), object()


def _fold(text: str) -> str:
    return text.translate(_FOLD)


def _tokens(pattern: str) -> list[object]:
    tokens: list[object] = []
    characters = iter(_fold(pattern))
    for character in characters:
        if character == "%":
            if not tokens or tokens[-1] is not _ANY:
                tokens.append(_ANY)
        elif character == "_":
            tokens.append(_ONE)
        elif character == "\\":
            tokens.append(next(characters, _NEVER))
        else:
            tokens.append(character)
    return tokens


def _fits(tokens: list[object], text: str) -> bool:
    """Greedy matching with one point of return: the last ``%`` may take one more character."""
    at = position = 0
    retry_at = -1
    retry_position = 0
    while position < len(text):
        token = tokens[at] if at < len(tokens) else _NEVER
        if token is _ANY:
            at, retry_at, retry_position = at + 1, at + 1, position
        elif token is _ONE or token == text[position]:
            at, position = at + 1, position + 1
        elif retry_at >= 0:
            retry_position += 1
            at, position = retry_at, retry_position
        else:
            return False
    return all(token is _ANY for token in tokens[at:])


def order_rows(rows: Iterable[StoredRow], order: Sequence[Sort]) -> list[StoredRow]:
    """``rows`` sorted by ``order``: NULL first ascending, last descending."""
    result = list(rows)
    for sort in reversed(order):
        field = sort.field
        result.sort(key=lambda row: sort_key(_value(field, row.id, row.image)), reverse=sort.descending)
    return result


def total_order(spec: QuerySpec) -> tuple[Sort, ...]:
    """The query's order with the id as its last key."""
    return spec.order if any(sort.field == "id" for sort in spec.order) else (*spec.order, Sort("id"))


def is_behind(row: StoredRow, order: Sequence[Sort], values: Sequence[object]) -> bool:
    """Whether ``row`` comes after the row whose sort keys are ``values``.

    Raises:
        QueryError: There is not one value per key.
    """
    if len(values) != len(order):
        raise QueryError("the cursor belongs to a query with another order")
    for sort, value in zip(order, values, strict=True):
        own, other = sort_key(_value(sort.field, row.id, row.image)), sort_key(value)
        if own != other:
            return _before(own, other) == sort.descending
    return False


def evaluate(spec: QuerySpec, rows: Iterable[StoredRow]) -> tuple[StoredRow, ...]:
    """The rows of ``rows`` that ``spec`` asks for, in its order; with ``count`` every row that is counted.

    Raises:
        QueryError: The query does not fit the rows.
    """
    if spec.ids is not None:
        found = {row.id: row for row in rows}
        return tuple(found[id] for id in spec.ids if id in found)
    kept = [row for row in rows if matches(spec.where, row.id, row.image) is True]
    order = total_order(spec)
    if spec.after is not None and not spec.count:
        kept = [row for row in kept if is_behind(row, order, spec.after)]
    kept = order_rows(kept, order)
    if spec.count:
        return tuple(kept)
    end = None if spec.limit is None else spec.offset + spec.limit
    return tuple(kept[spec.offset : end])
