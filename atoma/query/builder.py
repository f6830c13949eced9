"""Building a query by name and binding it to a store: ``Query().where(col("lane") != "done").order_by("-id")``."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias, Union

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.limits import DEPTH_MAX
from atoma.contracts.query import And, CompareOp, Not, Or, Predicate, QuerySpec, Sort
from atoma.contracts.values import Scalar, StoredRow
from atoma.errors import QueryError, ValidationError
from atoma.query.bounds import check_filter
from atoma.query.check import among, compare, is_null, known_field, like, literal_error, sort_keys
from atoma.schema.spec import StoreSpec


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter by field name, not yet bound to a store; combine with ``&``, ``|`` and ``~``."""

    node: _Unbound

    def __and__(self, other: Condition) -> Condition:
        return Condition(_All((self.node, _condition(other).node)))

    def __or__(self, other: Condition) -> Condition:
        return Condition(_Any((self.node, _condition(other).node)))

    def __invert__(self) -> Condition:
        return Condition(_Negated(self.node))

    def __bool__(self) -> bool:
        raise QueryError("combine conditions with &, | and ~, not with and, or, not")


def _condition(given: object) -> Condition:
    if not isinstance(given, Condition):
        raise QueryError(f"a condition is made with col(…), for example col('age') >= 18; {given!r} is none")
    return given


def _text(of: str, given: object) -> str:
    if not isinstance(given, str):
        raise QueryError(f"{of} takes text, not {given!r}")
    return given


def _count(of: str, given: object) -> int:
    if not isinstance(given, int) or isinstance(given, bool):
        raise QueryError(f"{of} takes a whole number, not {given!r}")
    return given


@dataclass(frozen=True, slots=True)
class _Comparison:
    op: CompareOp
    field: str
    value: object


@dataclass(frozen=True, slots=True)
class _Among:
    field: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Null:
    field: str


@dataclass(frozen=True, slots=True)
class _Pattern:
    field: str
    pattern: str


@dataclass(frozen=True, slots=True)
class _All:
    items: tuple[_Unbound, ...]


@dataclass(frozen=True, slots=True)
class _Any:
    items: tuple[_Unbound, ...]


@dataclass(frozen=True, slots=True)
class _Negated:
    item: _Unbound


_Unbound: TypeAlias = Union[_Comparison, _Among, _Null, _Pattern, _All, _Any, _Negated]  # noqa: UP007 - forward names


class Column:
    """A field by name; comparing it makes a :class:`Condition`."""

    __slots__ = ("name",)
    __hash__ = None  # type: ignore[assignment]  # == builds a condition, so columns cannot be keys

    def __init__(self, name: str) -> None:
        self.name = name

    def _compare(self, op: CompareOp, value: object) -> Condition:
        if value is None:
            raise QueryError(f"comparing {self.name!r} with None is always unknown in SQL; use col(…).is_null()")
        return Condition(_Comparison(op, self.name, value))

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("eq", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("ne", value)

    def __lt__(self, value: object) -> Condition:
        return self._compare("lt", value)

    def __le__(self, value: object) -> Condition:
        return self._compare("le", value)

    def __gt__(self, value: object) -> Condition:
        return self._compare("gt", value)

    def __ge__(self, value: object) -> Condition:
        return self._compare("ge", value)

    def in_(self, values: Iterable[object]) -> Condition:
        """True when the field equals one of ``values`` (at most 1,000).

        Raises:
            QueryError: ``values`` is one text, or nothing to go through.
        """
        if isinstance(values, (str, bytes)) or not is_a(values, Iterable):
            raise QueryError(f"in_() takes a list of values, in_([{values!r}])")
        return Condition(_Among(self.name, tuple(values)))

    def is_null(self) -> Condition:
        """True when the field has no value."""
        return Condition(_Null(self.name))

    def like(self, pattern: str) -> Condition:
        r"""SQLite's LIKE: ``%`` any text, ``_`` one character, ``\`` escapes; ASCII letters compare without case.

        At most 256 bytes and 8 wildcards, and 2,048 bytes in all patterns of a query; more is a ``QueryError`` when the
        query is asked.
        """
        return Condition(_Pattern(self.name, _text("like()", pattern)))


def col(name: str) -> Column:
    """The field ``name``, to be compared: ``col("age") >= 18``."""
    return Column(_text("col()", name))


@dataclass(frozen=True, slots=True)
class Query:
    """What to read from a store; immutable, each method gives a new one.

    The order is total: the id is added as the last sort key. Without ``order_by`` rows come by id.
    """

    condition: Condition | None = None
    order: tuple[str, ...] = ()
    limited: int | None = None
    skipped: int = 0
    cursor: str = ""

    def where(self, *conditions: Condition) -> Query:
        """Keep the rows for which every condition, old and new, is true.

        Raises:
            QueryError: Something is no condition.
        """
        combined = self.condition
        for condition in map(_condition, conditions):
            combined = condition if combined is None else combined & condition
        return replace(self, condition=combined)

    def order_by(self, *keys: str) -> Query:
        """Sort by field names, ``-name`` for descending; NULL comes first ascending."""
        return replace(self, order=tuple(_text("order_by()", key) for key in keys))

    def limit(self, count: int) -> Query:
        """At most ``count`` rows."""
        return replace(self, limited=_count("limit()", count))

    def offset(self, count: int) -> Query:
        """Skip ``count`` rows."""
        return replace(self, skipped=_count("offset()", count))

    def after(self, cursor: str) -> Query:
        """Continue behind the row that ``cursor`` (``page.meta.cursor``) stands for; ``""`` is the beginning."""
        return replace(self, cursor=_text("after()", cursor))


def bind(query: Query, store: StoreSpec[object]) -> QuerySpec:
    """Check ``query`` against ``store`` and turn it into plain data.

    Raises:
        QueryError: No query, unknown field, a value of the wrong type, a negative limit, a cursor of another query.
    """
    if not is_a(query, Query):
        raise QueryError(f"a query is made with Query(), for example Query().where(…).limit(20); {query!r} is none")
    where = None if query.condition is None else _bind_node(query.condition.node, store, 0)
    check_filter(where)
    order = _bind_order(query.order, store)
    if query.limited is not None and query.limited < 0:
        raise QueryError(f"limit must be 0 or more, not {query.limited}")
    if query.skipped < 0:
        raise QueryError(f"offset must be 0 or more, not {query.skipped}")
    after = decode_cursor(query.cursor, order) if query.cursor else None
    return QuerySpec(where, order, query.limited, query.skipped, after)


def _value(name: str, value: object, store: StoreSpec[object]) -> Scalar:
    try:
        return known_field(name, store).literal(value)
    except ValidationError as error:
        raise literal_error(error) from None


def _bind_node(node: _Unbound, store: StoreSpec[object], depth: int) -> Predicate:
    if depth > DEPTH_MAX:  # or going through it would end in a RecursionError
        raise QueryError(f"conditions are nested more than {DEPTH_MAX} deep")
    match node:
        case _Comparison(op, name, value):
            return compare(op, name, _value(name, value, store), store)
        case _Among(name, values):
            return among(name, [_value(name, value, store) for value in values], store)
        case _Null(name):
            return is_null(name, store)
        case _Pattern(name, pattern):
            return like(name, pattern, store)
        case _All(items):
            return And(tuple(_bind_node(item, store, depth + 1) for item in _flatten(items, _All)))
        case _Any(items):
            return Or(tuple(_bind_node(item, store, depth + 1) for item in _flatten(items, _Any)))
        case _Negated(item):
            return Not(_bind_node(item, store, depth + 1))


def _flatten(items: tuple[_Unbound, ...], kind: type[_All | _Any]) -> tuple[_Unbound, ...]:
    # a & b & c nests to the left; flat lists keep long chains within the depth limit
    flat: list[_Unbound] = []
    stack = list(reversed(items))
    while stack:
        item = stack.pop()
        if isinstance(item, kind):
            stack.extend(reversed(item.items))
        else:
            flat.append(item)
    return tuple(flat)


def _bind_order(keys: tuple[str, ...], store: StoreSpec[object]) -> tuple[Sort, ...]:
    order: list[Sort] = []
    for key in keys:
        order.append(Sort(key.removeprefix("-"), key.startswith("-")))
        if order[-1].field == "id":
            break  # no two rows share an id: what comes behind it decides nothing
    return sort_keys(order, store)


def encode_cursor(row: StoredRow, order: tuple[Sort, ...]) -> str:
    """The opaque keyset cursor that stands for ``row`` in ``order``."""
    keys = [row.id if sort.field == "id" else row.image[sort.field] for sort in order]
    names = [("-" if sort.descending else "") + sort.field for sort in order]
    return base64.urlsafe_b64encode(msgspec.msgpack.encode((names, keys))).decode().rstrip("=")


def decode_cursor(cursor: str, order: tuple[Sort, ...]) -> tuple[Scalar, ...]:
    """The sort-key values that ``cursor`` holds.

    Raises:
        QueryError: It is damaged, or belongs to a query with another order.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        names, keys = msgspec.msgpack.decode(raw, type=tuple[list[str], list[object]])
    except (ValueError, msgspec.DecodeError):
        raise QueryError("the cursor is damaged; take it from page.meta.cursor") from None
    if names != [("-" if sort.descending else "") + sort.field for sort in order]:
        raise QueryError(f"the cursor belongs to a query ordered by {', '.join(names)}")
    values: list[Scalar] = []
    for key in keys:
        if key is not None and not isinstance(key, (bool, int, float, str, bytes)):
            raise QueryError("the cursor is damaged; take it from page.meta.cursor")
        values.append(key)
    if len(values) != len(order):
        raise QueryError("the cursor is damaged; take it from page.meta.cursor")
    return tuple(values)
