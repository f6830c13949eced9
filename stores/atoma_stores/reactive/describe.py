"""A bound query as text, for people: ``lane <> 'done' ORDER BY id DESC LIMIT 50``."""

from __future__ import annotations

from atoma.contracts.query import And, Compare, In, IsNull, Like, Not, Or, Predicate, QuerySpec, Sort

_SIGNS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_SHOWN = 5
_TEXT_MAX = 40


def describe(query: QuerySpec) -> str:
    """The query in SQL's words; long values and lists are cut."""
    if query.ids is not None:
        return f"id IN ({_listed(query.ids)}), in this order"
    parts = [_predicate(query.where)] if query.where is not None else []
    if query.order:
        parts.append("ORDER BY " + ", ".join(_sort(sort) for sort in query.order))
    if query.after is not None:
        parts.append(f"AFTER ({_listed(query.after)})")
    if query.limit is not None:
        parts.append(f"LIMIT {query.limit}")
    if query.offset:
        parts.append(f"OFFSET {query.offset}")
    return " ".join(parts)


def _sort(sort: Sort) -> str:
    return f"{sort.field} DESC" if sort.descending else sort.field


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        shown = value if len(value) <= _TEXT_MAX else value[: _TEXT_MAX - 1] + "…"
        return "'" + shown.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return f"x'{value[:8].hex()}{'…' if len(value) > 8 else ''}'"
    return str(value)


def _listed(values: tuple[object, ...]) -> str:
    shown = ", ".join(_literal(value) for value in values[:_SHOWN])
    return shown if len(values) <= _SHOWN else f"{shown}, … {len(values)} in all"


def _predicate(node: Predicate) -> str:
    match node:
        case Compare(op=op, field=field, value=value):
            return f"{field} {_SIGNS[op]} {_literal(value)}"
        case In(field=field, values=values):
            return f"{field} IN ({_listed(values)})"
        case IsNull(field=field):
            return f"{field} IS NULL"
        case Like(field=field, pattern=pattern):
            return f"{field} LIKE {_literal(pattern)}"
        case And(items=items):
            return " AND ".join(_nested(item) for item in items) or "true"
        case Or(items=items):
            return " OR ".join(_nested(item) for item in items) or "false"
        case Not(item=item):
            return f"NOT {_nested(item)}"


def _nested(node: Predicate) -> str:
    return f"({_predicate(node)})" if isinstance(node, (And, Or)) else _predicate(node)
