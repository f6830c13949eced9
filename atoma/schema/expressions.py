"""Expressions over the columns of a store, from which conditions and sort keys are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.query import AS_WRITTEN, Call, Col, Expr, Lit
from atoma.errors import QueryError
from atoma.schema.field_terms import without_field
from atoma.schema.terms import Places, Term

V = TypeVar("V")
W = TypeVar("W")
P = TypeVar("P", int, float, str, bool)
V_co = TypeVar("V_co", covariant=True)

PATH_TYPES: Mapping[str, str] = MappingProxyType(
    {"json_int": "int", "json_real": "float", "json_text": "str", "json_bool": "bool"}
)
"""The functions that read a part of a document, each with the name of the type that it gives."""
INT32_MAX = 2**31 - 1
_WILD = re.compile(r"[%_\\]")


class Subquery(Generic[V_co]):
    """A query with one column, in which a value can be looked up."""

    __slots__ = ()

    def among(self, value: Term) -> Condition:
        """Return whether ``value`` is one of its values; :meth:`Expression.in_` uses this.

        Raises:
            QueryError: It does not have exactly one column.
        """
        raise NotImplementedError


class Expression(Term, Generic[V]):
    """A term of a known type; comparing it makes a condition, an ``Expression[bool]``.

    Conditions are combined with ``&``, ``|`` and ``~``.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # == builds a condition, so expressions cannot be keys

    def __repr__(self) -> str:
        return f"Expression({'…' if self.late else repr(self.node)})"

    def _compare(self, fn: str, value: object) -> Condition:
        if value is None:
            raise QueryError(f"comparing {self._name} with None is always unknown in SQL; use is_null()")
        node = self._node
        if isinstance(value, Term) or callable(node):
            return _call(fn, self, value)
        return Expression(Call(fn, (node, Lit(AS_WRITTEN, value))), self.store)

    @property
    def _name(self) -> str:
        return repr(self._node.name) if isinstance(self._node, Col) else "something"

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("eq", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self._compare("ne", value)

    @overload
    def __lt__(self: Expression[W | None], value: Operand[W]) -> Condition: ...
    @overload
    def __lt__(self, value: Operand[V]) -> Condition: ...
    def __lt__(self, value: object) -> Condition:
        return self._compare("lt", value)

    @overload
    def __le__(self: Expression[W | None], value: Operand[W]) -> Condition: ...
    @overload
    def __le__(self, value: Operand[V]) -> Condition: ...
    def __le__(self, value: object) -> Condition:
        return self._compare("le", value)

    @overload
    def __gt__(self: Expression[W | None], value: Operand[W]) -> Condition: ...
    @overload
    def __gt__(self, value: Operand[V]) -> Condition: ...
    def __gt__(self, value: object) -> Condition:
        return self._compare("gt", value)

    @overload
    def __ge__(self: Expression[W | None], value: Operand[W]) -> Condition: ...
    @overload
    def __ge__(self, value: Operand[V]) -> Condition: ...
    def __ge__(self, value: object) -> Condition:
        return self._compare("ge", value)

    @overload
    def __add__(self: Expression[W | None], other: Operand[W]) -> Expression[W | None]: ...
    @overload
    def __add__(self, other: V | Expression[V]) -> Expression[V]: ...
    @overload
    def __add__(self, other: Expression[V | None]) -> Expression[V | None]: ...
    def __add__(self, other: object) -> Term:
        return _made("add", self, other)

    def __radd__(self, other: V) -> Expression[V]:
        return _made("add", other, self)

    @overload
    def __sub__(self: Expression[W | None], other: Operand[W]) -> Expression[W | None]: ...
    @overload
    def __sub__(self, other: V | Expression[V]) -> Expression[V]: ...
    @overload
    def __sub__(self, other: Expression[V | None]) -> Expression[V | None]: ...
    def __sub__(self, other: object) -> Term:
        return _made("sub", self, other)

    def __rsub__(self, other: V) -> Expression[V]:
        return _made("sub", other, self)

    @overload
    def __mul__(self: Expression[W | None], other: Operand[W]) -> Expression[W | None]: ...
    @overload
    def __mul__(self, other: V | Expression[V]) -> Expression[V]: ...
    @overload
    def __mul__(self, other: Expression[V | None]) -> Expression[V | None]: ...
    def __mul__(self, other: object) -> Term:
        return _made("mul", self, other)

    def __rmul__(self, other: V) -> Expression[V]:
        return _made("mul", other, self)

    def __truediv__(self, other: V | Expression[V]) -> Expression[float | None]:
        return _made("div", self, other)

    def __rtruediv__(self, other: V) -> Expression[float | None]:
        return _made("div", other, self)

    def __floordiv__(self, other: V | Expression[V]) -> Expression[int | None]:
        return _made("floordiv", self, other)

    def __mod__(self, other: V | Expression[V]) -> Expression[int | None]:
        return _made("mod", self, other)

    def __neg__(self) -> Expression[V]:
        return _made("neg", self)

    def __abs__(self) -> Expression[V]:
        return _made("abs", self)

    def __round__(self, places: int = 0) -> Expression[V]:
        return _made("round", self, places)

    def __and__(self, other: Condition) -> Condition:
        return joined("and", cast("Condition", self), other)

    def __or__(self, other: Condition) -> Condition:
        return joined("or", cast("Condition", self), other)

    def __invert__(self) -> Condition:
        return _call("not", self)

    def __bool__(self) -> bool:
        raise QueryError("combine conditions with &, | and ~, not with and, or, not")

    @overload
    def in_(self, values: Subquery[V]) -> Condition: ...
    @overload
    def in_(self, values: Subquery[V | None]) -> Condition: ...
    @overload
    def in_(self, values: Iterable[V]) -> Condition: ...
    def in_(self, values: Iterable[V] | Subquery[V] | Subquery[V | None]) -> Condition:
        """True if it equals one of ``values``, which are a list or the results of a query with one column.

        More than 1,000 listed values raise ``QueryError`` when the query runs.

        Raises:
            QueryError: ``values`` is a single text, or not iterable.
        """
        if isinstance(values, Subquery):
            return values.among(self)
        if isinstance(values, (str, bytes)) or not is_a(values, Iterable):
            raise QueryError(f"in_() takes a list of values, in_([{values!r}])")
        return _call("in", self, *values)

    @overload
    def not_in(self, values: Subquery[V]) -> Condition: ...
    @overload
    def not_in(self, values: Subquery[V | None]) -> Condition: ...
    @overload
    def not_in(self, values: Iterable[V]) -> Condition: ...
    def not_in(self, values: Iterable[V] | Subquery[V] | Subquery[V | None]) -> Condition:
        """True if it equals none of ``values``; unknown if it is NULL, as in SQL."""
        among: Condition = self.in_(values)
        return ~among

    def is_same(self, value: V | Expression[V] | None) -> Condition:
        """Compare like ``==``, but NULL equals NULL, and the result is never unknown."""
        return _call("is_same", self, value)

    def between(self, low: V, high: V) -> Condition:
        """True from ``low`` to ``high``, both included."""
        return (self >= low) & (self <= high)

    def is_null(self) -> Condition:
        """True if it has no value."""
        return _call("is_null", self)

    def not_null(self) -> Condition:
        """True if it has a value."""
        return ~self.is_null()

    def like(self, pattern: str) -> Condition:
        r"""SQLite's LIKE: ``%`` any text, ``_`` one character, ``\`` escapes; ASCII letters match in either case.

        A pattern has at most 256 bytes and 8 wildcards, and all patterns of a query have at most 2,048 bytes; more
        raises ``QueryError`` when the query runs.
        """
        return _call("like", self, checked_text("like()", pattern))

    def regex(self, pattern: str) -> Condition:
        r"""Return whether the regular expression ``pattern`` matches anywhere in the text: ``regex(r"^[A-Z]{2}\d+$")``.

        The syntax is RE2's, without look-around and back-references, so the time is at most the length of the text
        times the size of the pattern. ``^`` and ``$`` are the ends of the text; ``\d``, ``\w``, ``\s`` and ``\b``
        cover ASCII; ``(?i)`` at the beginning ignores case. A pattern has at most 256 bytes; a query has at most 8 of
        them, and 2,048 bytes in all its patterns. An invalid or too large pattern raises ``QueryError`` when the
        query runs, and so does every pattern without the extra ``regex``, or at a hub on PostgreSQL.
        """
        return _call("regex", self, checked_text("regex()", pattern))

    def starts(self, text: str, *, exact: bool = False) -> Condition:
        """Return whether it begins with ``text``; ASCII letters match in either case, unless ``exact``, which an index serves."""
        return self._holds("starts", text, "{}%", exact)

    def ends(self, text: str, *, exact: bool = False) -> Condition:
        """Return whether it ends with ``text``; ASCII letters match in either case, unless ``exact``."""
        return self._holds("ends", text, "%{}", exact)

    def contains(self, text: str, *, exact: bool = False) -> Condition:
        """Return whether it contains ``text``; ASCII letters match in either case, unless ``exact``."""
        return self._holds("contains", text, "%{}%", exact)

    def _holds(self, fn: str, text: str, pattern: str, exact: bool) -> Condition:
        plain = checked_text(f"{fn}()", text)
        if exact:
            return _call(fn, self, plain)
        return _call("like", self, pattern.format(_WILD.sub(r"\\\g<0>", plain)))

    def lower(self) -> Expression[V]:
        """The text with its ASCII letters in lower case."""
        return _made("lower", self)

    def upper(self) -> Expression[V]:
        """The text with its ASCII letters in upper case."""
        return _made("upper", self)

    @overload
    def length(self: Expression[W | None]) -> Expression[int | None]: ...
    @overload
    def length(self) -> Expression[int]: ...
    def length(self) -> Term:
        """The number of characters of the text."""
        return _made("length", self)

    def concat(self, *others: V | Expression[V] | str) -> Expression[V]:
        """The text and ``others`` joined; NULL if one of them is."""
        return _made("concat", self, *others)

    def substr(self, start: int, length: int = INT32_MAX) -> Expression[V]:
        """At most ``length`` characters of the text, from character number ``start`` on; the first is 1."""
        return _made("substr", self, start, length)

    def replace(self, old: str, new: str) -> Expression[V]:
        """The text with ``new`` in place of every ``old``; an empty ``old`` occurs nowhere."""
        return _made("replace", self, checked_text("replace()", old), checked_text("replace()", new))

    def trim(self) -> Expression[V]:
        """The text without the spaces at both ends."""
        return _made("trim", self)

    def ltrim(self) -> Expression[V]:
        """The text without leading spaces."""
        return _made("ltrim", self)

    def rtrim(self) -> Expression[V]:
        """The text without trailing spaces."""
        return _made("rtrim", self)

    def coalesce(self: Expression[W | None], *others: W | Expression[W]) -> Expression[W]:
        """The first value, of this one and ``others``, that is not NULL."""
        return _made("coalesce", self, *others)

    def to_int(self) -> Expression[int | None]:
        """A real truncated towards zero, or a text read as an integer; NULL for a text that is not an integer.

        A real beyond 64 bits raises ``QueryError`` when the query runs.
        """
        return _made("to_int", self)

    def to_real(self) -> Expression[float | None]:
        """An integer as a real, or a text read as a real; NULL for a text that is not a number."""
        return _made("to_real", self)

    @overload
    def to_text(self: Expression[W | None]) -> Expression[str | None]: ...
    @overload
    def to_text(self) -> Expression[str]: ...
    def to_text(self) -> Term:
        """An integer in decimal digits; a date, a time or a UUID as it is stored."""
        return _made("to_text", self)

    @overload
    def to_date(self: Expression[W | None]) -> Expression[date | None]: ...
    @overload
    def to_date(self) -> Expression[date]: ...
    def to_date(self) -> Term:
        """The date of a datetime, in UTC."""
        return _made("to_date", self)

    @overload
    def year(self: Expression[W | None]) -> Expression[int | None]: ...
    @overload
    def year(self) -> Expression[int]: ...
    def year(self) -> Term:
        """The year of a date, or of a datetime in UTC."""
        return _made("year", self)

    @overload
    def month(self: Expression[W | None]) -> Expression[int | None]: ...
    @overload
    def month(self) -> Expression[int]: ...
    def month(self) -> Term:
        """The month of a date, or of a datetime in UTC: 1 to 12."""
        return _made("month", self)

    @overload
    def day(self: Expression[W | None]) -> Expression[int | None]: ...
    @overload
    def day(self) -> Expression[int]: ...
    def day(self) -> Term:
        """The day of the month of a date, or of a datetime in UTC."""
        return _made("day", self)

    @overload
    def hour(self: Expression[W | None]) -> Expression[int | None]: ...
    @overload
    def hour(self) -> Expression[int]: ...
    def hour(self) -> Term:
        """The hour of a time, or of a datetime in UTC."""
        return _made("hour", self)

    @overload
    def minute(self: Expression[W | None]) -> Expression[int | None]: ...
    @overload
    def minute(self) -> Expression[int]: ...
    def minute(self) -> Term:
        """The minute of a time, or of a datetime in UTC."""
        return _made("minute", self)

    @overload
    def second(self: Expression[W | None]) -> Expression[int | None]: ...
    @overload
    def second(self) -> Expression[int]: ...
    def second(self) -> Term:
        """The second of a time, or of a datetime in UTC, without its fraction."""
        return _made("second", self)

    def matches(self, text: str) -> Condition:
        """Return whether it satisfies the search ``text``; see :meth:`StoreSpec.matches`, which has an index."""
        return _call("matches", checked_text("matches()", text), self)

    @overload
    def highlight(
        self: Expression[W | None], text: str, before: str = ..., after: str = ...
    ) -> Expression[str | None]: ...
    @overload
    def highlight(self, text: str, before: str = ..., after: str = ...) -> Expression[str]: ...
    def highlight(self, text: str, before: str = "[", after: str = "]") -> Term:
        """The text with ``before`` and ``after`` around each match of the search ``text``."""
        return _made("highlight", self._sought("highlight()", text), self, before, after)

    @overload
    def snippet(
        self: Expression[W | None], text: str, before: str = ..., after: str = ..., words: int = ...
    ) -> Expression[str | None]: ...
    @overload
    def snippet(self, text: str, before: str = ..., after: str = ..., words: int = ...) -> Expression[str]: ...
    def snippet(self, text: str, before: str = "[", after: str = "]", words: int = 12) -> Term:
        """At most ``words`` words of the text, around the first one that the search ``text`` finds, highlighted."""
        return _made("snippet", self._sought("snippet()", text), self, before, after, words)

    def _sought(self, call: str, text: str) -> str:
        """The search ``text`` as this column is looked through: what names its field is sought in it."""
        text = checked_text(call, text)
        return without_field(text, self.node.name) if not self.late and isinstance(self.node, Col) else text

    def path(self, path: str, kind: type[P]) -> Expression[P | None]:
        """The value in a document at ``path``, such as ``$.size`` or ``$.tags[0]``; NULL if it is of another type.

        Args:
            path: ``$`` for the document, then ``.name``, ``."any name"`` and ``[number]``, from 0 on.
            kind: ``int``, ``float``, ``str`` or ``bool``.

        Raises:
            QueryError: ``kind`` is none of these types.
        """
        fn = next((fn for fn, name in PATH_TYPES.items() if name == getattr(kind, "__name__", "")), None)
        if fn is None:
            raise QueryError(f"path() reads int, float, str or bool, not {kind!r}")
        return _made(fn, self, checked_text("path()", path))

    def has(self, value: str | int, path: str = "$") -> Condition:
        """Return whether the list that it is, or the list at ``path`` in it, has an element equal to ``value``."""
        return _call("json_has", self, checked_text("has()", path), value)

    def any_of(self, values: Iterable[str | int], path: str = "$") -> Condition:
        """Return whether the list has at least one of ``values``, which must not be empty; see :meth:`has`."""
        return _call("or", *_some("any_of()", [self.has(value, path) for value in values]))

    def all_of(self, values: Iterable[str | int], path: str = "$") -> Condition:
        """Return whether the list has each of ``values``, which must not be empty; see :meth:`has`."""
        return _call("and", *_some("all_of()", [self.has(value, path) for value in values]))

    def asc(self) -> SortKey:
        """Sort by it in ascending order: NULL first, then from the smallest value on."""
        return SortKey(self)

    def desc(self) -> SortKey:
        """Sort by it in descending order: from the greatest value on, NULL last."""
        return SortKey(self, descending=True)


Condition: TypeAlias = Expression[bool]
Operand: TypeAlias = W | Expression[W] | Expression[W | None]
"""A value, or what has one, where either side may be missing."""


class SortKey(msgspec.Struct, frozen=True, eq=False):
    """An expression to sort by."""

    expression: Term
    descending: bool = False


def col(name: str) -> Expression[object]:
    """Name a field of the queried store: ``col("age") >= 18``; it is looked up when the query runs."""
    return Expression(Col(0, checked_text("col()", name)))


def case(*branches: tuple[Condition, V | Expression[V]], otherwise: V | Expression[V] | None = None) -> Expression[V]:
    """Take the value of the first of ``branches`` whose condition is true: ``case((size > 9, "large"), otherwise="small")``.

    Raises:
        QueryError: There is no branch, or a branch has no condition.
    """
    if not branches:
        raise QueryError("case() takes branches, each a condition and a value")
    found: object = otherwise
    for condition, value in reversed(branches):
        found = _made("if", checked_condition(condition), value, found)
    return cast("Expression[V]", found)


def _some(of: str, conditions: Sequence[Condition]) -> Sequence[Condition]:
    if not conditions:
        raise QueryError(f"{of} takes at least one value")
    return conditions


def _call(fn: str, *args: object) -> Condition:
    return _made(fn, *args)


def _made(fn: str, *args: object) -> Expression[Any]:
    """What the function ``fn`` makes of ``args``, of which terms are read and others are values."""
    terms = [each for each in args if isinstance(each, Term)]
    if _together(terms):
        return Expression(Call(fn, tuple([_node(each) for each in args])), terms[0].store)
    return Expression(lambda places, _: Call(fn, tuple([_node(each, places) for each in args])))


def _together(terms: Sequence[Term]) -> bool:
    """Whether all of ``terms``, of which there is one, read one source and nothing else."""
    store = terms[0].store
    return not any(each.late or each.store != store for each in terms)


def _node(value: object, places: Places | None = None) -> Expr:
    if not isinstance(value, Term):
        return Lit(AS_WRITTEN, value)
    return value.node if places is None else value.at(places)


def joined(fn: str, left: Condition, right: Condition) -> Condition:
    """``a & b & c`` is one call: long chains stay within the depth that a query may have."""
    checked_condition(right)
    if _together((left, right)):
        return Expression(_chained(fn, left.node, right.node), left.store)
    return Expression(lambda places, kept: _chained(fn, left.at(places, kept=kept), right.at(places, kept=kept)))


def _chained(fn: str, left: Expr, right: Expr) -> Expr:
    if isinstance(left, Call) and left.fn == fn:
        return Call(fn, (*left.args, right))
    return Call(fn, (left, right))


def every(conditions: Sequence[Condition], places: Places) -> Expr | None:
    """That all of ``conditions`` are true, where only this counts; None without any."""
    found: Expr | None = None
    for each in conditions:
        node = each.at(places, kept=True)
        found = node if found is None else _chained("and", found, node)
    return found


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
    from difflib import get_close_matches

    near = get_close_matches(name[:80], known, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    return QueryError(f"store {store!r} has no field {name[:80]!r}; it has: {', '.join(known)}", hint=hint)
