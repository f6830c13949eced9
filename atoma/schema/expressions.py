"""Expressions over the columns of a store: what conditions and sort keys are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Generic, TypeAlias, TypeVar, cast

from atoma.contracts.checks import is_a
from atoma.contracts.query import AS_WRITTEN, Call, Col, Expr, Lit
from atoma.errors import QueryError

V = TypeVar("V")


class Term:
    """Something that has a value for each row, of whatever type.

    Attributes:
        node: What it is, as data.
        store: The store whose column it reads; ``""`` where it is for the query to say.
    """

    __slots__ = ("node", "store")

    def __init__(self, node: Expr, store: str = "") -> None:
        self.node = node
        self.store = store


class Expression(Term, Generic[V]):
    """A term of a known type; comparing it makes a condition, an ``Expression[bool]``.

    Conditions are combined with ``&``, ``|`` and ``~``.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # == builds a condition, so expressions cannot be keys

    def __repr__(self) -> str:
        return f"Expression({self.node!r})"

    def _compare(self, fn: str, value: object) -> Condition:
        if value is None:
            raise QueryError(f"comparing {self._name} with None is always unknown in SQL; use is_null()")
        return _call(fn, self, value)

    @property
    def _name(self) -> str:
        return repr(self.node.name) if isinstance(self.node, Col) else "something"

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("eq", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("ne", value)

    def __lt__(self, value: V | Expression[V]) -> Condition:
        return self._compare("lt", value)

    def __le__(self, value: V | Expression[V]) -> Condition:
        return self._compare("le", value)

    def __gt__(self, value: V | Expression[V]) -> Condition:
        return self._compare("gt", value)

    def __ge__(self, value: V | Expression[V]) -> Condition:
        return self._compare("ge", value)

    def __and__(self, other: Condition) -> Condition:
        return joined("and", cast("Condition", self), other)

    def __or__(self, other: Condition) -> Condition:
        return joined("or", cast("Condition", self), other)

    def __invert__(self) -> Condition:
        return _call("not", self)

    def __bool__(self) -> bool:
        raise QueryError("combine conditions with &, | and ~, not with and, or, not")

    def in_(self, values: Iterable[V]) -> Condition:
        """True when it equals one of ``values``; more than 1,000 are a ``QueryError`` when the query is asked.

        Raises:
            QueryError: ``values`` is one text, or nothing to go through.
        """
        if isinstance(values, (str, bytes)) or not is_a(values, Iterable):
            raise QueryError(f"in_() takes a list of values, in_([{values!r}])")
        return _call("in", self, *values)

    def between(self, low: V, high: V) -> Condition:
        """True from ``low`` to ``high``, both included."""
        return (self >= low) & (self <= high)

    def is_null(self) -> Condition:
        """True when it has no value."""
        return _call("is_null", self)

    def not_null(self) -> Condition:
        """True when it has a value."""
        return ~self.is_null()

    def like(self, pattern: str) -> Condition:
        r"""SQLite's LIKE: ``%`` any text, ``_`` one character, ``\`` escapes; ASCII letters compare without case.

        At most 256 bytes and 8 wildcards, and 2,048 bytes in all patterns of a query; more is a ``QueryError`` when the
        query is asked.
        """
        return _call("like", self, checked_text("like()", pattern))

    def asc(self) -> SortKey:
        """To sort by it: NULL first, then from the smallest value on."""
        return SortKey(self)

    def desc(self) -> SortKey:
        """To sort by it: from the greatest value on, NULL last."""
        return SortKey(self, descending=True)


Condition: TypeAlias = Expression[bool]


@dataclass(frozen=True, slots=True, eq=False)
class SortKey:
    """An expression to sort by."""

    expression: Term
    descending: bool = False


def col(name: str) -> Expression[object]:
    """The field ``name`` of the store that is asked: ``col("age") >= 18``; it is looked up when the query is asked."""
    return Expression(Col(0, checked_text("col()", name)))


def _call(fn: str, first: Term, *rest: object) -> Condition:
    stores = {first.store, *(each.store for each in rest if isinstance(each, Expression))} - {""}
    if len(stores) > 1:
        raise QueryError(f"one query reads one store, not {' and '.join(sorted(stores))}")
    return Expression(Call(fn, (first.node, *map(_node, rest))), next(iter(stores), ""))


def _node(value: object) -> Expr:
    return value.node if isinstance(value, Term) else Lit(AS_WRITTEN, value)


def joined(fn: str, left: Condition, right: Condition) -> Condition:
    """``a & b & c`` is one call: long chains stay within the depth that a query may have."""
    node = left.node
    checked_condition(right)
    if isinstance(node, Call) and node.fn == fn:
        return Expression(Call(fn, (*node.args, right.node)), _call(fn, left, right).store)
    return _call(fn, left, right)


def checked_condition(given: object) -> Condition:
    """``given``, which is a condition.

    Raises:
        QueryError: It is none.
    """
    if not isinstance(given, Expression):
        raise QueryError(f"a condition is made with col(…), for example col('age') >= 18; {given!r} is none")
    return cast("Condition", given)


def checked_text(of: str, given: object) -> str:
    """``given``, which is text.

    Raises:
        QueryError: It is none.
    """
    if not isinstance(given, str):
        raise QueryError(f"{of} takes text, not {given!r}")
    return given


def unknown_field(store: str, name: str, known: Sequence[str]) -> QueryError:
    """The error that a store has no field of that name; it lists names that are near."""
    near = get_close_matches(name[:80], known, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    return QueryError(f"store {store!r} has no field {name[:80]!r}; it has: {', '.join(known)}", hint=hint)
