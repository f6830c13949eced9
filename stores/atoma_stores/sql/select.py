"""A checked plan as one SELECT statement: identifiers come from the schema, values are bound by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from operator import itemgetter
from typing import TypeAlias, cast

from msgspec.structs import replace

from atoma.contracts.functions import FUNCTIONS
from atoma.contracts.query import (
    PATH,
    Agg,
    Call,
    Col,
    Derived,
    Exists,
    Expr,
    Lit,
    Order,
    Param,
    Plan,
    Scalar,
    Source,
    Store,
)
from atoma.ports.hub_queries import Fences
from atoma.query.scope import Stores
from atoma.query.walk import has_subquery, is_grouped
from atoma.schema.kinds import INT64_MAX
from atoma.schema.spec import AnyStore
from atoma_stores.sql.dialect import SQLITE, Dialect
from atoma_stores.sql.fence import KEY_COLUMNS, ROW, SCOPE, FencedTables
from atoma_stores.sql.kinds import kind_of, kind_of_arguments
from atoma_stores.sql.names import quote
from atoma_stores.sql.scripts import Value
from atoma_stores.sql.search import in_index, search_text

Binder: TypeAlias = Callable[[tuple[object, ...]], tuple[Value, ...]]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL and the values that are bound to it.

    Attributes:
        sql: Its text.
        takes: The value of each place, in order: the parameter with that number or, below zero, a value of ``more``.
        more: Values that are not parameters of the query; the first one is -1.
        whole: The parts of a row of the result, in order: rows of stores, and of derived tables with that many columns;
            None if a row consists of its own columns.
        sources: The names of the stores that are read as ``t0``, ``t1`` and so on; ``""`` for a derived table.
        keys: The number of columns at the end that are the sort keys of whole rows, if the rows do not contain them.
    """

    sql: str
    takes: tuple[int, ...] = ()
    more: tuple[Value, ...] = ()
    whole: tuple[AnyStore | int, ...] | None = None
    sources: tuple[str, ...] = ()
    keys: int = 0

    def bindings(self, params: Sequence[object], first: Sequence[Value] = ()) -> tuple[Value, ...]:
        """Return the values to bind for the parameters ``params``, with ``first`` in place of the first values of ``more``."""
        return self.binder(len(params))((*params, *first, *self.more[len(first) :]))

    def binder(self, count: int) -> Binder:
        """Return the function that picks the values to bind from ``count`` parameters followed by ``more``."""
        places = [at if at >= 0 else count - 1 - at for at in self.takes]
        if len(places) < 2:  # with a single index, an itemgetter returns the item and not a tuple
            return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))
        return cast("Binder", itemgetter(*places))


@dataclass(frozen=True, slots=True)
class SourceAlias:
    """A source under its name in the text.

    Attributes:
        name: The name.
        store: The store; None for a derived table.
        source: The source in the plan.
    """

    name: str
    store: AnyStore | None
    source: Source

    @property
    def width(self) -> int:
        """The number of columns of a derived table."""
        return len(self.source.query.columns or ()) if isinstance(self.source, Derived) else 0

    def column(self, name: str) -> str:
        """Return the SQL of one of its columns."""
        return f"{self.name}.{quote(name)}" if self.store is not None else f"{self.name}.{name}"


Aliases: TypeAlias = tuple[SourceAlias, ...]


HERE = "here"
"""The column of a derived table that is never NULL, which tells a missing row from a row of NULLs."""


def whole_row(alias: SourceAlias, *, fenced: bool) -> list[str]:
    """Return the columns of a whole row; the first one is NULL if the row is missing.

    On a device NULL stands for the scope of a store whose rows are all of one, which its declaration says: it is not read.
    """
    store = alias.store
    if store is None:
        return [alias.column(name) for name in (HERE, *(f"c{number}" for number in range(alias.width)))]
    columns = [alias.column(name) for name in (*KEY_COLUMNS, *store.value_columns)]
    if not fenced and store.scope_field is None:
        columns[SCOPE] = "NULL"
    return columns


@dataclass(slots=True)
class Compiler:
    """A compiler that makes one statement from a query.

    Args:
        stores: Returns a store by its name.
        fences: What the caller may see of each store at a hub; None on a device, where that is every row.
        dialect: The dialect of the database.
        by_id: Whether rows are found by their ids alone.
        places: Whether the sort keys are added to rows that do not contain them.

    Attributes:
        tables: The tables that the query may name.
    """

    stores: Stores
    fences: Fences | None = None
    dialect: Dialect = SQLITE
    by_id: bool = False
    places: bool = False
    tables: FencedTables = field(init=False)
    _places: dict[int, int] = field(default_factory=dict[int, int])
    _more: list[Value] = field(default_factory=list[Value])
    _sources: list[str] = field(default_factory=list[str])
    _derived: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.tables = FencedTables(
            self.dialect,
            self.fences,
            self.bind,
            lambda rule, store: self.condition(rule, (SourceAlias(ROW, store, Store(store.name)),), ()),
            by_id=self.by_id,
        )

    def select(self, plan: Plan) -> Statement:
        """Return the statement of ``plan``, which is checked and in normal form, without its includes.

        It reads one row beyond the limit, which shows whether there are more.
        """
        aliases, body = self.body(plan, (), one_more=True)
        whole: tuple[AnyStore | int, ...] | None = None
        keys = 0
        if plan.columns is not None:
            columns = [self.expr(named.expr, aliases, ()) for named in plan.columns]
        else:
            columns = [column for alias in aliases for column in whole_row(alias, fenced=self.tables.fenced)]
            whole = tuple([alias.store or alias.width for alias in aliases])
            if self.places and any(has_subquery(each.expr) for each in plan.order):
                keys = len(plan.order)
                columns += [self.expr(each.expr, aliases, ()) for each in plan.order]
        found = self.statement(f"SELECT {_distinct(plan)}{', '.join(columns)} {body}", whole)
        return replace_fields(found, keys=keys) if keys else found

    def statement(self, text: str, whole: tuple[AnyStore | int, ...] | None) -> Statement:
        """Return the statement with that text, the values that were bound, and the fences that precede it."""
        before = [*self.tables.fences.values(), *self._derived]
        if before:
            text = f"WITH {', '.join(before)} {text}"
        return Statement(text, tuple(self._places), tuple(self._more), whole, tuple(self._sources))

    def bind(self, value: Value) -> str:
        """Return a place for a value that is not a parameter of the query."""
        self._more.append(value)
        return self._place(-len(self._more))

    def _place(self, taken: int) -> str:
        return self.dialect.place(self._places.setdefault(taken, len(self._places) + 1))

    def alias(self, store: AnyStore | None, source: Source) -> SourceAlias:
        """Return a new name for a source."""
        self._sources.append("" if store is None else store.name)
        return SourceAlias(f"t{len(self._sources) - 1}", store, source)

    def parts(self, plan: Plan, belongs: Callable[[SourceAlias], str]) -> tuple[SourceAlias, str, str, str]:
        """Return the parts of a plan of one store's rows: its source, table, conditions and sort keys.

        Args:
            plan: The plan.
            belongs: Returns one more condition on its source.
        """
        assert isinstance(plan.source, Store)
        table, alias = self._source(plan.source)
        conditions = [belongs(alias), *self._conditions(plan, (alias,), ())]
        return alias, table, " AND ".join(conditions), self.order(plan, (alias,), ())

    def body(
        self, plan: Plan, outer: Aliases, *, one_more: bool = False, ordered: bool = True, first: int = 1
    ) -> tuple[Aliases, str]:
        """Return everything after the columns of ``plan``, and its sources.

        Args:
            plan: The plan.
            outer: The sources around it, from -1 down.
            one_more: Whether to read one row beyond the limit.
            ordered: Whether the order of the rows matters.
            first: The position of the first of its own columns.
        """
        aliases: Aliases = ()
        text = ""
        joins = (None, *plan.joins)
        for source, join in zip(plan.sources, joins, strict=True):
            table, alias = self._source(source)
            before, aliases = aliases, (*aliases, alias)
            if join is None:
                text = f"FROM {table} AS {alias.name}"
                continue
            on = self.condition(join.on, aliases, outer)
            if not join.cross_scope:
                on = " AND ".join([on, *_same_scope(before, alias)])
            text += f" {'LEFT' if join.kind == 'left' else 'INNER'} JOIN {table} AS {alias.name} ON {on}"
        grouped = plan.seek is not None and is_grouped(plan)
        where = self._conditions(plan, aliases, outer, grouped=grouped)
        text += f" WHERE {' AND '.join(where)}" if where else ""
        if plan.group or _is_distinct_by_groups(plan):
            group = plan.group or [named.expr for named in plan.columns or ()]
            text += " GROUP BY " + ", ".join([self.expr(each, aliases, outer) for each in group])
        having = [] if plan.having is None else [self.condition(plan.having, aliases, outer)]
        if grouped and plan.seek is not None and plan.seek.values:
            having.append(self._beyond(plan, aliases, outer))
        text += f" HAVING {' AND '.join(having)}" if having else ""
        text += f" ORDER BY {self.order(plan, aliases, outer, first)}" if plan.order and ordered else ""
        return aliases, text + _limit(plan, one_more, self.dialect.spelling.whatever)

    def _source(self, source: Source) -> tuple[str, SourceAlias]:
        if isinstance(source, Store):
            store = self.stores(source.name)
            return self.tables.read(store), self.alias(store, source)
        # a derived table with a limit would run once per row of the loop around it (as a co-routine): compute it once
        plan = source.query
        aliases, body = self.body(plan, (), ordered=_is_cut(plan), first=2)
        shown = [named.expr for named in plan.columns or ()]
        columns = ["1", *[self.expr(each, aliases, ()) for each in shown]]
        names = [HERE, *[f"c{number}" for number in range(len(shown))]]
        name = f"_d{len(self._derived)}"  # no store has such a name
        text = f"SELECT {_distinct(plan)}{', '.join(columns)} {body}"
        self._derived.append(f"{name}({', '.join(names)}) AS MATERIALIZED ({text})")
        return name, self.alias(None, source)

    def subquery(self, plan: Plan, outer: Aliases) -> str:
        """Return ``plan`` as the text of a query within another one."""
        aliases, body = self.body(plan, outer, ordered=_is_cut(plan))
        columns = [self.expr(named.expr, aliases, outer) for named in plan.columns or ()] or ["1"]
        return f"SELECT {_distinct(plan)}{', '.join(columns)} {body}"

    def _conditions(self, plan: Plan, aliases: Aliases, outer: Aliases, *, grouped: bool = False) -> list[str]:
        found: list[str] = []
        if plan.where is not None:
            found.append(self.condition(plan.where, aliases, outer))
        if plan.seek is not None and plan.seek.values and not grouped:
            found.append(self._beyond(plan, aliases, outer))
        return found

    def expr(self, expr: Expr, aliases: Aliases, outer: Aliases) -> str:
        """Return an expression as a value, in parentheses if it needs them."""
        text = self._text(expr, aliases, outer)
        return self.dialect.spelling.number(text) if _says_whether(expr) else text

    def condition(self, expr: Expr, aliases: Aliases, outer: Aliases) -> str:
        """Return an expression as a condition."""
        text = self._text(expr, aliases, outer)
        return text if _says_whether(expr) else self.dialect.spelling.condition(text)

    def _text(self, expr: Expr, aliases: Aliases, outer: Aliases) -> str:
        spelling = self.dialect.spelling
        match expr:
            case Param(index=index, type=type_):
                return spelling.typed(self._place(index), type_)
            case Lit(type=type_, value=value):
                if value is None:
                    return spelling.literal(None)
                if type_ == PATH:
                    return spelling.path(str(value))  # the check has made sure that it contains no quotes
                # the values of a query in normal form are separate, those of a rule are in their places
                return spelling.typed(self.bind(cast("Value", value)), type_)
            case Col(source=source, name=name):
                return (aliases[source] if source >= 0 else outer[-1 - source]).column(name)
            case Call(fn="matches", args=(text, Col(source=source), *_) as args) if self._has_index(
                expr, aliases, outer
            ):
                alias = aliases[source] if source >= 0 else outer[-1 - source]
                assert alias.store is not None
                place = self.expr(text, aliases, outer)
                return search_text(
                    alias.store, alias.name, place, {each.name for each in args if isinstance(each, Col)}
                )
            case Call(fn=fn, args=args):
                takes = FUNCTIONS[fn].takes
                wanted = (*takes, *[takes[-1]] * len(args))
                return spelling.call(
                    fn,
                    [
                        (self.condition if want == "bool" else self.expr)(arg, aliases, outer)
                        for arg, want in zip(args, wanted, strict=False)
                    ],
                    kind_of_arguments(expr, *self._around(aliases, outer)) if fn in spelling.by_kind else "",
                )
            case Agg():
                return self._aggregate(expr, aliases, outer)
            case Exists(query=query, negated=negated):
                return f"({'NOT ' if negated else ''}EXISTS ({self.subquery(query, (*aliases, *outer))}))"
            case Scalar(query=query):
                limited = query if query.limit is not None and query.limit <= 1 else _first(query)
                return f"({self.subquery(limited, (*aliases, *outer))})"

    def _has_index(self, call: Call, aliases: Aliases, outer: Aliases) -> bool:
        column = call.args[1]
        assert isinstance(column, Col)
        store = (aliases[column.source] if column.source >= 0 else outer[-1 - column.source]).store
        return self.fences is None and store is not None and in_index(call, store.search)

    def _aggregate(self, agg: Agg, aliases: Aliases, outer: Aliases) -> str:
        inner = "*" if agg.arg is None else self.expr(agg.arg, aliases, outer)
        where = "" if agg.where is None else self.condition(agg.where, aliases, outer)
        kind = "" if agg.arg is None else kind_of(agg.arg, *self._around(aliases, outer))
        return self.dialect.spelling.aggregate(agg.fn, inner, kind, distinct=agg.distinct, where=where)

    def _around(self, aliases: Aliases, outer: Aliases) -> tuple[list[Source], list[Source], Stores]:
        return [each.source for each in aliases], [each.source for each in outer], self.stores

    # order and cursors

    def order(self, plan: Plan, aliases: Aliases, outer: Aliases, first: int = 1) -> str:
        """Return the sort keys of ``plan``; of distinct rows, keys with a subquery, whose names are new each time, by position."""
        key = self.dialect.spelling.key
        shown = [named.expr for named in plan.columns or ()] if plan.distinct else []
        keys = [
            key(
                self.expr(each.expr, aliases, outer)
                if not shown or not has_subquery(each.expr)
                else str(first + shown.index(each.expr)),
                descending=each.descending is not plan.backward,
                nullable=self._nullable(each.expr, aliases),
            )
            for each in plan.order
        ]
        if self.tables.fenced and not (plan.distinct or is_grouped(plan)):
            # at a hub, rows of several scopes may have the same id
            way = " DESC" if plan.backward else ""
            keys += [
                f"{each.name}._scope{way}" for each in aliases if each.store is not None and each.store.scope_field
            ]
        return ", ".join(keys)

    def _beyond(self, plan: Plan, aliases: Aliases, outer: Aliases) -> str:
        """Return the condition for the rows beyond the cursor: NULL is first ascending, last descending."""
        assert plan.seek is not None
        order = [Order(each.expr, each.descending is plan.seek.forward) for each in plan.order]  # True: falling
        keys = [self.expr(each.expr, aliases, outer) for each in order]
        values = plan.seek.values
        places = [self.expr(value, aliases, outer) for value in values]
        if self._is_plain(order, values, aliases):
            return f"({', '.join(keys)}) {'<' if order[0].descending else '>'} ({', '.join(places)})"
        branches: list[str] = []
        for at, each in enumerate(order):
            same = [self.dialect.spelling.call("is_same", (keys[n], places[n])) for n in range(at)]
            behind = self._behind(keys[at], places[at], values[at], falling=each.descending)
            branches.append(" AND ".join([*same, behind]))
        either = " OR ".join(f"({branch})" for branch in branches)
        bound = self._leading_bound(order[0], keys[0], places[0], values[0], aliases)
        return f"{bound} AND ({either})" if bound else f"({either})"

    def _behind(self, key: str, place: str, value: Expr, *, falling: bool) -> str:
        if not isinstance(value, Param):  # NULL
            return self.dialect.spelling.never if falling else f"{key} IS NOT NULL"
        return f"({key} < {place} OR {key} IS NULL)" if falling else f"{key} > {place}"

    def _is_plain(self, order: Sequence[Order], values: Sequence[Expr], aliases: Aliases) -> bool:
        return all(
            isinstance(value, Param)
            and not self._nullable(each.expr, aliases)
            and each.descending == order[0].descending
            for each, value in zip(order, values, strict=True)
        )

    def _leading_bound(self, first: Order, key: str, place: str, value: Expr, aliases: Aliases) -> str:
        """Return a plain range on the first key, so that an index can be entered at the cursor; ``""`` if there is none."""
        if not isinstance(value, Param):
            return ""
        if not first.descending:
            return f"{key} >= {place}"
        return "" if self._nullable(first.expr, aliases) else f"{key} <= {place}"

    def _nullable(self, expr: Expr, aliases: Aliases) -> bool:
        if not isinstance(expr, Col) or expr.source != 0:
            return True
        store = aliases[0].store
        return store is None or store.fields[expr.name].nullable


def _says_whether(expr: Expr) -> bool:
    """Whether the text of ``expr`` is a condition by itself; other truth values are the 0 and 1 of a column."""
    return isinstance(expr, Exists) or (isinstance(expr, Call) and FUNCTIONS[expr.fn].gives == "bool")


def _same_scope(before: Sequence[SourceAlias], alias: SourceAlias) -> list[str]:
    """Return the condition that joins rows within one scope only, for stores that take it from a field."""
    if alias.store is None or alias.store.scope_field is None:
        return []
    beside = [each for each in before if each.store is not None and each.store.scope_field is not None]
    return [f"({each.name}._scope IS NULL OR {each.name}._scope = {alias.name}._scope)" for each in beside]


def _distinct(plan: Plan) -> str:
    return "DISTINCT " if plan.distinct and not _is_distinct_by_groups(plan) else ""


def _is_distinct_by_groups(plan: Plan) -> bool:
    """Whether equal rows are merged by grouping, since SQLite would read a left-joined source completely under DISTINCT."""
    left = plan.distinct and any(join.kind == "left" for join in plan.joins)
    return left and not is_grouped(plan) and not any(has_subquery(named.expr) for named in plan.columns or ())


def _limit(plan: Plan, one_more: bool, whatever: str) -> str:
    if plan.limit is None:
        return f" LIMIT {whatever} OFFSET {plan.offset}" if plan.offset else ""
    return f" LIMIT {min(plan.limit + one_more, INT64_MAX)}" + (f" OFFSET {plan.offset}" if plan.offset else "")


def _is_cut(plan: Plan) -> bool:
    """Whether only some of its rows are taken, so that their order decides which."""
    return plan.limit is not None or plan.offset > 0


def _first(plan: Plan) -> Plan:
    return replace(plan, limit=1)
