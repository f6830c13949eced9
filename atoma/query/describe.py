"""A bound query as text, for people: ``cards WHERE lane <> 'done' ORDER BY id DESC LIMIT 50``."""

from __future__ import annotations

from collections.abc import Sequence

from atoma.contracts.functions import FUNCTIONS
from atoma.contracts.query import (
    Agg,
    BoundQuery,
    Call,
    Col,
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

_SHOWN = 5
_TEXT_MAX = 40
_LOOSE = frozenset({"and", "or"})


def describe(query: BoundQuery) -> str:
    """The query in SQL's words, without the store it begins with; long values and lists are cut."""
    return _Words(query.params).plan(query.plan, within=False)


def describe_whole(query: BoundQuery) -> str:
    """The query in SQL's words, with the store it begins with: ``FROM cards WHERE lane = 'todo' ORDER BY id``."""
    return _Words(query.params).plan(query.plan, within=True)


def describe_order(query: BoundQuery) -> list[str]:
    """The sort keys, each with a ``-`` before it when it descends."""
    words = _Words(query.params)
    return [("-" if each.descending else "") + words.expr(each.expr) for each in query.plan.order]


def describe_sources(plan: Plan) -> str:
    """The stores that are read, in order; what a derived table reads stands in parentheses."""
    return ", ".join([_source_name(source) for source in plan.sources])


def _source_name(source: Source) -> str:
    return source.name if isinstance(source, Store) else f"({describe_sources(source.query)})"


class _Words:
    def __init__(self, params: Sequence[object]) -> None:
        self._params = params

    def plan(self, plan: Plan, *, within: bool) -> str:
        parts = [f"FROM {self._source(plan.source)}"] if within or plan.joins else []
        for join in plan.joins:
            parts.append(f"{join.kind.upper()} JOIN {self._source(join.source)} ON {self.expr(join.on)}")
        if plan.columns is not None:
            shown = ", ".join(self.expr(named.expr) for named in plan.columns)
            parts.insert(0, f"SELECT {'DISTINCT ' if plan.distinct else ''}{shown}")
        if plan.where is not None:
            parts.append(f"WHERE {self.expr(plan.where)}" if parts else self.expr(plan.where))
        if plan.group:
            parts.append("GROUP BY " + ", ".join(map(self.expr, plan.group)))
        if plan.having is not None:
            parts.append(f"HAVING {self.expr(plan.having)}")
        if plan.order:
            parts.append("ORDER BY " + ", ".join(map(self._order, plan.order)))
        if plan.seek is not None:
            word = "AFTER" if plan.seek.forward else "BEFORE"
            parts.append(f"{word} ({self._listed(plan.seek.values)})")
        if plan.limit is not None:
            parts.append(f"LIMIT {plan.limit}")
        if plan.offset:
            parts.append(f"OFFSET {plan.offset}")
        parts += [f"INCLUDE {include.name}" for include in plan.include]
        return " ".join(parts)

    def _source(self, source: Source) -> str:
        return source.name if isinstance(source, Store) else f"({self.plan(source.query, within=True)})"

    def _order(self, order: Order) -> str:
        return self.expr(order.expr) + (" DESC" if order.descending else "")

    def expr(self, expr: Expr) -> str:
        match expr:
            case Lit(value=value):
                return _value(value)
            case Param(index=index):
                return _value(self._params[index]) if index < len(self._params) else "?"
            case Col(source=source, name=name):
                return name if source == 0 else f"{name}@{source}"
            case Agg(fn=fn, arg=arg, where=where, distinct=distinct):
                inner = ("DISTINCT " if distinct else "") + ("*" if arg is None else self.expr(arg))
                return f"{fn}({inner})" + ("" if where is None else f" FILTER (WHERE {self.expr(where)})")
            case Exists(query=query, negated=negated):
                return f"{'NOT ' if negated else ''}EXISTS ({self.plan(query, within=True)})"
            case Scalar(query=query):
                return f"({self.plan(query, within=True)})"
            case Call():
                return self._call(expr)

    def _call(self, call: Call) -> str:
        sign, args = FUNCTIONS[call.fn].sign if call.fn in FUNCTIONS else "", call.args
        if call.fn in _LOOSE:
            empty = "true" if call.fn == "and" else "false"
            return f" {sign} ".join(map(self._nested, args)) or empty
        if call.fn == "not":
            return f"NOT {self._nested(args[0])}"
        if call.fn == "is_null":
            return f"{self.expr(args[0])} IS NULL"
        if call.fn == "in":
            return f"{self.expr(args[0])} IN ({self._listed(args[1:])})"
        if sign and len(args) == 2:
            return f"{self._operand(args[0])} {sign} {self._operand(args[1])}"
        if call.fn == "if":
            return f"CASE WHEN {self.expr(args[0])} THEN {self.expr(args[1])} ELSE {self.expr(args[2])} END"
        return f"{call.fn}({', '.join(map(self.expr, args))})"

    def _nested(self, expr: Expr) -> str:
        return f"({self.expr(expr)})" if isinstance(expr, Call) and expr.fn in _LOOSE else self.expr(expr)

    def _operand(self, expr: Expr) -> str:
        signed = isinstance(expr, Call) and expr.fn in FUNCTIONS and FUNCTIONS[expr.fn].sign
        return f"({self.expr(expr)})" if signed else self.expr(expr)

    def _listed(self, values: Sequence[Expr]) -> str:
        shown = ", ".join(map(self.expr, values[:_SHOWN]))
        return shown if len(values) <= _SHOWN else f"{shown}, … {len(values)} in all"


def _value(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        shown = value if len(value) <= _TEXT_MAX else value[: _TEXT_MAX - 1] + "…"
        return "'" + shown.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return f"x'{value[:8].hex()}{'…' if len(value) > 8 else ''}'"
    return str(value)
