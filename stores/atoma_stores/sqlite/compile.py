"""Queries as SQL: values are bound, identifiers come from the schema only, and the meaning is the contract's.

SQLite converts values before comparing them with a column of another kind (``'5'`` with an INTEGER column). The
contract knows no conversion: such a comparison is decided here, by the order NULL < numbers < text < blobs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atoma.contracts.query import And, Compare, In, IsNull, Like, Not, Or, Predicate, QuerySpec, Sort
from atoma.contracts.values import Scalar
from atoma.errors import QueryError
from atoma.query.bounds import check_filter
from atoma.schema.kinds import INT64_MAX, INT64_MIN
from atoma.schema.spec import StoreSpec
from atoma_stores.sqlite.ddl import quote

VALUES_MAX = 30_000
_OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_RANKS = {"INTEGER": 1, "REAL": 1, "TEXT": 2, "BLOB": 3}


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with its bound values."""

    sql: str
    bindings: tuple[Scalar, ...]


def rank(value: object) -> int:
    """Where the kind of a value stands in SQLite's order; NaN is NULL.

    Raises:
        QueryError: No column can hold it.
    """
    match value:
        case None:
            return 0
        case bool() | int():
            if not INT64_MIN <= value <= INT64_MAX:
                raise QueryError(f"{value} does not fit into 64 bits")
            return 1
        case float():
            return 0 if math.isnan(value) else 1
        case str():
            return 2
        case bytes():
            return 3
        case _:
            raise QueryError(f"a {type(value).__name__} cannot be compared with a column")


def _scalar(value: object) -> Scalar:
    assert value is None or isinstance(value, bool | int | float | str | bytes)
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise QueryError("text in a query has a lone surrogate") from None
    return value


class Compiler:
    """Builds one statement; its bindings are in the order of the text.

    Args:
        store: The store that is asked.
    """

    def __init__(self, store: StoreSpec[object]) -> None:
        self._store = store
        self.bindings: list[Scalar] = []

    def bind(self, value: object) -> str:
        """A placeholder for ``value``."""
        if len(self.bindings) >= VALUES_MAX:
            raise QueryError(f"a query holds at most {VALUES_MAX} values")
        self.bindings.append(_scalar(value))
        return "?"

    def column(self, name: str) -> str:
        """A declared column, quoted."""
        if name not in self._store.fields:
            known = ", ".join(self._store.columns)
            raise QueryError(f"store {self._store.name!r} has no field {name!r}; it has: {known}")
        return quote(name)

    def predicate(self, node: Predicate) -> str:
        """A condition that keeps to the bounds, as SQL, in parentheses where it needs them."""
        match node:
            case Compare(op, name, value):
                return self.compare(name, op, value)
            case In(name, values):
                return self._among(name, values)
            case IsNull(name):
                return f"{self.column(name)} IS NULL"
            case Like(name, pattern):
                return self._like(name, pattern)
            case And(items):
                return _balanced([self.predicate(item) for item in items], "AND") if items else "1"
            case Or(items):
                return _balanced([self.predicate(item) for item in items], "OR") if items else "0"
            case Not(item):
                return f"NOT ({self.predicate(item)})"

    def _decided(self, column: str, truth: bool) -> str:
        return f"CASE WHEN {column} IS NULL THEN NULL ELSE {int(truth)} END"

    def compare(self, name: str, op: str, value: object) -> str:
        """``column op value`` with SQL's NULL and without conversions."""
        column = self.column(name)
        if op not in _OPERATORS:
            raise QueryError(f"unknown operator {op!r}; there are: {', '.join(_OPERATORS)}")
        wanted, own = rank(value), _RANKS[self._store.fields[name].sql_type]
        if wanted == 0:
            return "NULL"
        if wanted != own:
            return self._decided(column, op == "ne" or (op in ("lt", "le") if own < wanted else op in ("gt", "ge")))
        return f"{column} {_OPERATORS[op]} {self.bind(value)}"

    def _among(self, name: str, values: Sequence[object]) -> str:
        column = self.column(name)
        if not values:
            return "0"
        own = _RANKS[self._store.fields[name].sql_type]
        ranks = [rank(value) for value in values]
        same = [value for value, its in zip(values, ranks, strict=True) if its == own]
        if same:
            found = f"{column} IN ({', '.join([self.bind(value) for value in same])})"
        else:
            found = self._decided(column, False)
        return f"({found} OR NULL)" if 0 in ranks else found

    def _like(self, name: str, pattern: str) -> str:
        column = self.column(name)
        if self._store.fields[name].sql_type != "TEXT":
            raise QueryError(f"like needs a text field; {self._store.name}.{name} is no text")
        return f"{column} LIKE {self.bind(pattern)} ESCAPE '\\'"

    # keyset cursors

    def after(self, order: Sequence[Sort], values: Sequence[object]) -> str:
        """The rows that come behind ``values`` in ``order``: NULL first ascending, last descending."""
        if len(values) != len(order):
            raise QueryError("the cursor belongs to a query with another order")
        if self._is_plain(order, values):
            columns = ", ".join(self.column(sort.field) for sort in order)
            places = ", ".join(self.bind(value) for value in values)
            return f"({columns}) {'<' if order[0].descending else '>'} ({places})"
        bound = self._leading_bound(order[0], values[0])
        branches: list[str] = []
        for position in range(len(order)):
            same = [self._same(sort.field, values[n]) for n, sort in enumerate(order[:position])]
            branches.append(" AND ".join([*same, self._behind(order[position], values[position])]))
        either = " OR ".join(f"({branch})" for branch in branches)
        return f"{bound} AND ({either})" if bound else f"({either})"

    def _is_plain(self, order: Sequence[Sort], values: Sequence[object]) -> bool:
        fields = self._store.fields
        return all(
            sort.field in fields
            and not fields[sort.field].nullable
            and sort.descending == order[0].descending
            and rank(value) == _RANKS[fields[sort.field].sql_type]
            for sort, value in zip(order, values, strict=True)
        )

    def _leading_bound(self, sort: Sort, value: object) -> str:
        """A plain range on the first key, so that an index can be entered at the cursor; ``""`` when there is none."""
        if rank(value) != _RANKS[self._store.fields[sort.field].sql_type]:
            return ""
        if not sort.descending:
            return self.compare(sort.field, "ge", value)
        return "" if self._store.fields[sort.field].nullable else self.compare(sort.field, "le", value)

    def _same(self, name: str, value: object) -> str:
        return f"{self.column(name)} IS NULL" if rank(value) == 0 else self.compare(name, "eq", value)

    def _behind(self, sort: Sort, value: object) -> str:
        column = self.column(sort.field)
        if rank(value) == 0:
            return "0" if sort.descending else f"{column} IS NOT NULL"
        if not sort.descending:
            return self.compare(sort.field, "gt", value)
        return f"({self.compare(sort.field, 'lt', value)} OR {column} IS NULL)"


def _balanced(parts: list[str], word: str) -> str:
    # SQLite's parser bounds the depth of an expression: a flat chain of 1,000 would be 1,000 deep
    if len(parts) == 1:
        return f"({parts[0]})"
    half = len(parts) // 2
    return f"({_balanced(parts[:half], word)} {word} {_balanced(parts[half:], word)})"


def total_order(query: QuerySpec) -> tuple[Sort, ...]:
    """The query's order with the id as its last key."""
    if any(sort.field == "id" for sort in query.order):
        return query.order
    return (*query.order, Sort("id"))


def row_columns(store: StoreSpec[object]) -> str:
    """The columns of a whole row, as :func:`row_of` expects them."""
    return ", ".join(["id", "_ver", "_seq", "_scope", *(quote(name) for name in store.value_columns)])


def compile_select(store: StoreSpec[object], query: QuerySpec, *, scopes: Sequence[str] | None = None) -> Statement:
    """The rows that ``query`` asks for, in its order (``ids`` and ``count`` have their own statements).

    Args:
        store: The store.
        query: The query.
        scopes: Only the rows of these scopes, at least one (the hub's tables), None for all.

    Raises:
        QueryError: The query does not fit the store.
    """
    compiler = Compiler(store)
    order = total_order(query)
    where = _conditions(compiler, query, scopes)
    if query.after is not None:
        where.append(compiler.after(order, query.after))
    keys = ", ".join(compiler.column(sort.field) + (" DESC" if sort.descending else "") for sort in order)
    sql = f"SELECT {row_columns(store)} FROM {quote(store.name)}{_where(where)} ORDER BY {keys}"
    if query.limit is not None or query.offset:
        sql += (
            f" LIMIT {compiler.bind(-1 if query.limit is None else query.limit)} OFFSET {compiler.bind(query.offset)}"
        )
    return Statement(sql, tuple(compiler.bindings))


def compile_count(store: StoreSpec[object], query: QuerySpec, *, scopes: Sequence[str] | None = None) -> Statement:
    """How many rows match ``query``'s filter."""
    compiler = Compiler(store)
    where = _conditions(compiler, query, scopes)
    return Statement(f"SELECT count(*) FROM {quote(store.name)}{_where(where)}", tuple(compiler.bindings))


def compile_one(store: StoreSpec[object], *, scoped: bool = False) -> str:
    """The row of one id, the only bound value (with ``scoped`` the scope comes first)."""
    key = "_scope=? AND id=?" if scoped else "id=?"
    return f"SELECT {row_columns(store)} FROM {quote(store.name)} WHERE {key}"


def _conditions(compiler: Compiler, query: QuerySpec, scopes: Sequence[str] | None) -> list[str]:
    conditions: list[str] = []
    if scopes is not None:
        places = ", ".join([compiler.bind(scope) for scope in scopes])
        conditions.append(f"_scope={places}" if len(scopes) == 1 else f"_scope IN ({places})")
    if query.where is not None:
        check_filter(query.where)
        conditions.append(compiler.predicate(query.where))
    return conditions


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(f'({item})' for item in conditions)}" if conditions else ""
