"""The way in which two databases write the parts of a query: functions, truth, order, values in the text.

The meaning of a query is the same everywhere (``atoma.query.functions``). Where a database would mean something else by
the obvious text, it gets another text that has the right meaning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from atoma.contracts.functions import AGGREGATES, FUNCTIONS, family, for_each
from atoma.errors import QueryError
from atoma.query.paths import segments_of
from atoma_stores.sql import functions
from atoma_stores.sql.functions import Text
from atoma_stores.sql.literals import literal


class Spelling(ABC):
    """The spelling of one database.

    Attributes:
        by_kind: The functions that are written differently for arguments of different types.
        never: A condition that is true for no row.
        whatever: What follows ``LIMIT`` if there is an offset but no limit.
        name_bytes: The length of the longest name, in bytes.
    """

    by_kind: ClassVar[frozenset[str]]
    never: ClassVar[str]
    whatever: ClassVar[str]
    name_bytes: ClassVar[int]

    @abstractmethod
    def call(self, fn: str, args: Sequence[str], kind: str = "") -> str:
        """Return a call with the arguments ``args``; the first of those with a common type is a ``kind``, where that matters."""

    @abstractmethod
    def aggregate(self, fn: str, arg: str, kind: str, *, distinct: bool, where: str) -> str:
        """Return an aggregate over ``arg``, which is ``*`` for the rows; ``where`` is a condition, ``""`` for none."""

    @abstractmethod
    def typed(self, place: str, kind: str) -> str:
        """Return the place of a parameter of that type."""

    @abstractmethod
    def literal(self, value: object) -> str:
        """Return a value for the text."""

    @abstractmethod
    def path(self, path: str) -> str:
        """Return a place in a document for the text."""

    @abstractmethod
    def number(self, condition: str) -> str:
        """Return a condition as the 0 or 1 that columns hold."""

    @abstractmethod
    def condition(self, number: str) -> str:
        """Return a 0 or 1 as a condition."""

    @abstractmethod
    def key(self, text: str, *, descending: bool, nullable: bool) -> str:
        """Return a sort key: NULL comes first ascending, and last descending."""

    @abstractmethod
    def indexed(self, text: str, *, plain: bool) -> str:
        """Return the subject of an index: a column if it is ``plain``, otherwise an expression."""


class _SQLite(Spelling):
    by_kind: ClassVar[frozenset[str]] = functions.BY_KIND
    never: ClassVar[str] = "0"
    whatever: ClassVar[str] = "-1"
    name_bytes: ClassVar[int] = 1_000_000

    def call(self, fn: str, args: Sequence[str], kind: str = "") -> str:
        return functions.sql_of(fn, args, kind)

    def aggregate(self, fn: str, arg: str, kind: str, *, distinct: bool, where: str) -> str:
        filtered = f" FILTER (WHERE {where})" if where else ""
        if fn == "sum" and not distinct and kind != "real":
            # SQLite fails as soon as a partial sum does not fit; sums of two halves of every number always do
            halves = f"sum({arg} >> 32){filtered}, sum({arg} & 4294967295){filtered}"
            return f"{functions.WHOLE_SUM}({halves})"
        name = functions.SUM if fn == "sum" else functions.AGGREGATE_SQL[fn]
        return f"{name}({'DISTINCT ' if distinct else ''}{arg}){filtered}"

    def typed(self, place: str, kind: str) -> str:
        return place

    def literal(self, value: object) -> str:
        return literal(value)

    def path(self, path: str) -> str:
        return literal(path)

    def number(self, condition: str) -> str:
        return condition

    def condition(self, number: str) -> str:
        return number

    def key(self, text: str, *, descending: bool, nullable: bool) -> str:
        return text + (" DESC" if descending else "")

    def indexed(self, text: str, *, plain: bool) -> str:
        return text


NAME_BYTES = 63
"""PostgreSQL silently truncates longer names."""
_C = 'COLLATE "C"'
_TYPES = {"int": "bigint", "bool": "bigint", "duration": "bigint", "real": "float8", "blob": "bytea"}
_CLAMP = 1_000_000_000
"""A position beyond the end of every text."""


def _type(kind: str) -> str:
    """Return PostgreSQL's type for values of that type."""
    if family(kind) == "decimal":
        return "bigint" if kind != "decimal" else "text"
    return _TYPES.get(family(kind), "text")


def _infix(sign: str) -> Text:
    return lambda args: f"({args[0]} {sign} {args[1]})"


def _real(sign: str) -> Text:
    """Return arithmetic over reals in which NaN is NULL and there is only one zero."""
    return lambda args: f"NULLIF({args[0]} {sign} {args[1]} + '0'::float8, 'NaN')"


def _listed(word: str, empty: str) -> Text:
    return lambda args: f"({f' {word} '.join(args)})" if args else empty


def _digits(at: int, count: int = 2) -> Text:
    return lambda args: f"substr({args[0]}, {at}, {count})::bigint"


def _folded(name: str) -> Text:
    return lambda args: f"{name}({args[0]} {_C})"  # for ASCII only


def _called(name: str, *rest: str) -> Text:
    return lambda args: f"{name}({', '.join([*args, *rest])})"


def _like(args: Sequence[str]) -> str:
    # a pattern that ends with a lone escape matches nothing; PostgreSQL would raise an error
    text, pattern = args
    lone = rf"{pattern} ~ '(^|[^\\])(\\\\)*\\$'"
    return (
        f"(CASE WHEN {lone} THEN CASE WHEN {text} IS NOT NULL THEN FALSE END "
        rf"ELSE {text} ILIKE {pattern} {_C} ESCAPE '\' END)"
    )


def _unasked(why: str) -> Text:
    def refuse(args: Sequence[str]) -> str:
        raise QueryError(f"this hub is on PostgreSQL, {why}", hint="ask a device, or use like()")

    return refuse


_UNSEARCHED = _unasked("where texts are not searched by words")
_OTHER_REGEX = _unasked("whose regular expressions mean something else than RE2's")


def _substr(args: Sequence[str]) -> str:
    text, start, length = args
    first = f"least(greatest({start}, -{_CLAMP}), {_CLAMP})::int"
    return f"substr({text}, {first}, least(greatest({length}, 0), {_CLAMP})::int)"


def _whole_of_text(args: Sequence[str]) -> str:
    least, most = -(2**63), 2**63 - 1
    fits = f"{args[0]}::numeric BETWEEN {least} AND {most}"
    read = f"CASE WHEN {fits} THEN {args[0]}::numeric::bigint END"
    return f"(CASE WHEN {args[0]} ~ '^[+-]?0*[0-9]{{1,19}}$' THEN {read} END)"


def _real_of_text(args: Sequence[str]) -> str:
    form = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
    return f"(CASE WHEN {args[0]} ~ '{form}' THEN {args[0]}::float8 + '0'::float8 END)"


def _at(form: str, kind: str, value: str) -> Text:
    """Return the value at a place of a document if it has that kind and ``form`` is true for its text ``{v}``."""

    def text(args: Sequence[str]) -> str:
        found = f"({args[0]}::json #> {args[1]})"
        names = {"v": f"{found}::text", "t": f"({args[0]}::json #>> {args[1]})"}
        fits = f" AND {form.format_map(names)}" if form else ""
        return f"(CASE WHEN json_typeof({found}) = '{kind}'{fits} THEN {value.format_map(names)} END)"

    return text


def _element(kind: str, same: str) -> Text:
    """Return the SQL for whether an array in a document has an element of that kind for which ``same`` is true."""

    def text(args: Sequence[str]) -> str:
        found = f"({args[0]}::json #> {args[1]})"
        array = f"CASE WHEN json_typeof({found}) = 'array' THEN {found} ELSE '[]'::json END"
        each = f"SELECT 1 FROM json_array_elements({array}) AS e WHERE json_typeof(e) = '{kind}' AND {same.format(args[2])}"
        return f"(CASE WHEN {args[0]} IS NOT NULL AND {args[2]} IS NOT NULL THEN EXISTS ({each}) END)"

    return text


_WHOLE = "CASE WHEN {v} ~ '^-?[0-9]{{1,19}}$' THEN {v}::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 ELSE FALSE END"
_POSTGRESQL: Mapping[str, Text] = for_each(
    FUNCTIONS,
    "PostgreSQL's text of a function",
    {
        "and": _listed("AND", "TRUE"),
        "or": _listed("OR", "FALSE"),
        "not": lambda args: f"(NOT {args[0]})",
        "eq": _infix("="),
        "ne": _infix("<>"),
        "lt": _infix("<"),
        "le": _infix("<="),
        "gt": _infix(">"),
        "ge": _infix(">="),
        "is_same": _infix("IS NOT DISTINCT FROM"),
        "is_null": lambda args: f"({args[0]} IS NULL)",
        "in": lambda args: f"({args[0]} IN ({', '.join(args[1:])}))" if len(args) > 1 else "FALSE",
        "like": _like,
        "starts": lambda args: f"(substr({args[0]}, 1, length({args[1]})) = {args[1]})",
        "ends": lambda args: f"(right({args[0]}, length({args[1]})) = {args[1]})",
        "contains": lambda args: f"(strpos({args[0]}, {args[1]}) > 0)",
        "regex": _OTHER_REGEX,
        "if": lambda args: f"(CASE WHEN {args[0]} THEN {args[1]} ELSE {args[2]} END)",
        "coalesce": _called("coalesce"),
        "add": _infix("+"),
        "sub": _infix("-"),
        "mul": _infix("*"),
        "div": lambda args: _real("/")([f"{args[0]}::float8", f"NULLIF({args[1]}::float8, 0)"]),
        "floordiv": lambda args: f"({args[0]} / NULLIF({args[1]}, 0))",
        "mod": lambda args: f"({args[0]} % NULLIF({args[1]}, 0))",
        "neg": lambda args: f"(-{args[0]})",
        "abs": _called("abs"),
        "round": lambda args: f"round({args[0]}::text::numeric, ({args[1]})::int)::float8",
        "lower": _folded("lower"),
        "upper": _folded("upper"),
        "length": lambda args: f"length({args[0]})::bigint",
        "concat": _listed("||", f"(''::text {_C})"),
        "substr": _substr,
        "replace": _called("replace"),
        "trim": _called("btrim", "' '"),
        "ltrim": _called("ltrim", "' '"),
        "rtrim": _called("rtrim", "' '"),
        "to_int": lambda args: f"({args[0]})::bigint",
        "to_real": lambda args: f"({args[0]})::float8",
        "to_text": lambda args: f"(({args[0]})::text {_C})",
        "to_date": lambda args: f"substr({args[0]}, 1, 10)",
        "year": _digits(1, 4),
        "month": _digits(6),
        "day": _digits(9),
        "hour": _digits(1),
        "minute": _digits(4),
        "second": _digits(7),
        "matches": _UNSEARCHED,
        "rank": _UNSEARCHED,
        "highlight": _UNSEARCHED,
        "snippet": _UNSEARCHED,
        "json_int": _at(_WHOLE, "number", "{v}::bigint"),
        "json_real": _at("", "number", "{v}::float8 + '0'::float8"),
        "json_text": _at("", "string", f"({{t}} {_C})"),
        "json_bool": _at("", "boolean", "{t}::bool"),
        "json_has": _element(
            "number", "(CASE WHEN e::text ~ '^-?[0-9]{{1,19}}$' THEN e::text::numeric = {0} ELSE FALSE END)"
        ),
    },
)
UNASKED = frozenset(name for name, text in _POSTGRESQL.items() if text in (_UNSEARCHED, _OTHER_REGEX))
"""The functions that are not evaluated by PostgreSQL."""
_OF_KIND: Mapping[tuple[str, str], Text] = {
    ("add", "real"): _real("+"),
    ("sub", "real"): _real("-"),
    ("mul", "real"): _real("*"),
    ("neg", "real"): lambda args: f"('0'::float8 - {args[0]})",
    ("to_int", "real"): lambda args: f"trunc({args[0]})::bigint",
    ("to_int", "text"): _whole_of_text,
    ("to_real", "text"): _real_of_text,
    ("hour", "time"): _digits(12),
    ("minute", "time"): _digits(15),
    ("second", "time"): _digits(18),
    ("json_has", "text"): _element("string", "(e #>> '{{}}') = {0}"),
}

_AGGREGATES = frozenset(
    for_each(AGGREGATES, "PostgreSQL's text of an aggregate", dict.fromkeys(("count", "sum", "avg", "min", "max"), ""))
)


class _PostgreSQL(Spelling):
    by_kind: ClassVar[frozenset[str]] = frozenset(name for name, _ in _OF_KIND)
    never: ClassVar[str] = "FALSE"
    whatever: ClassVar[str] = "ALL"
    name_bytes: ClassVar[int] = NAME_BYTES

    def call(self, fn: str, args: Sequence[str], kind: str = "") -> str:
        return _OF_KIND.get((fn, family(kind)), _POSTGRESQL[fn])(args)

    def aggregate(self, fn: str, arg: str, kind: str, *, distinct: bool, where: str) -> str:
        assert fn in _AGGREGATES
        filtered = f" FILTER (WHERE {where})" if where else ""
        once = "DISTINCT " if distinct else ""
        # a real as the decimal of its notation: the sum of such decimals does not depend on their order
        total = f"sum({once}{arg}{'::text::numeric' if kind == 'real' else ''}){filtered}"
        match fn:
            case "sum":
                return f"NULLIF(({total})::float8, 'NaN')" if kind == "real" else f"({total})::bigint"
            case "avg":
                count = f"count({once}{arg}){filtered}"
                if kind == "real":
                    return f"NULLIF(({total})::float8, 'NaN') / NULLIF({count}, 0)"
                return f"({total} / NULLIF({count}, 0))::float8"
            case "min" | "max" if family(kind) == "blob":
                order = "" if fn == "min" else " DESC"
                kept = f"{arg} IS NOT NULL" + (f" AND {where}" if where else "")
                return f"(array_agg({arg} ORDER BY {arg}{order}) FILTER (WHERE {kept}))[1]"
            case _:
                return f"{fn}({once}{arg}){filtered}"

    def typed(self, place: str, kind: str) -> str:
        of = _type(kind.removesuffix("?"))
        return f"({place}::text {_C})" if of == "text" else f"{place}::{of}"

    def literal(self, value: object) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, str):
            return f"""('{value.replace("'", "''")}'::text {_C})"""
        if isinstance(value, bytes):
            return f"'\\x{value.hex()}'::bytea"
        if isinstance(value, float):
            return f"'{value!r}'::float8"
        return f"({int(value)})::bigint" if isinstance(value, int) else repr(value)

    def path(self, path: str) -> str:
        segments = ", ".join(f'"{segment}"' for segment in segments_of(path) or ())
        return f"'{{{segments}}}'::text[]"

    def number(self, condition: str) -> str:
        return f"({condition})::int"

    def condition(self, number: str) -> str:
        return f"({number} <> 0)"

    def key(self, text: str, *, descending: bool, nullable: bool) -> str:
        falling = " DESC" if descending else ""
        if not nullable:
            return text + falling
        return f"{text}{falling} NULLS {'LAST' if descending else 'FIRST'}"

    def indexed(self, text: str, *, plain: bool) -> str:
        return text if plain else f"({text})"


SQLITE: Spelling = _SQLite()
POSTGRESQL: Spelling = _PostgreSQL()
