"""Whether a query keeps to the bounds that every door has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atoma.contracts.codec import encode
from atoma.contracts.limits import BOUNDS, Bounds
from atoma.contracts.query import BoundQuery, Call, Col, Derived, Exists, Expr, Lit, Param, Plan, Scalar
from atoma.errors import QueryError
from atoma.query.walk import parts, top_expressions, value_of
from atoma.schema.kinds import INT64_MAX

_BOUNDED = frozenset({"in", "like", "regex"})
_WILDCARDS = re.compile(r"\\.|([%_])", re.DOTALL)


@dataclass(slots=True)
class _Spent:
    """The part of its bounds that a query has taken so far."""

    bounds: Bounds
    params: Sequence[object]
    plans: int = -1  # the query itself is not within it
    conditions: int = 0
    values: int = 0
    patterns: int = 0
    regexes: int = 0
    branches: int = 0


Within: TypeAlias = "list[tuple[Plan, int, int]]"
"""Plans that are still to be looked at: how deep each stands, and within how many includes."""


def check_bounds(plan: Plan, bounds: Bounds = BOUNDS, params: Sequence[object] = ()) -> None:
    """See that ``plan``, and every plan within it, keeps to the bounds.

    It goes through without recursion, so that it can be asked of what a stranger sent.

    Args:
        plan: The plan.
        bounds: What it is held to.
        params: The values of its parameters, where it has some.

    Raises:
        QueryError: It does not.
    """
    spent = _Spent(bounds, params)
    left: Within = [(plan, 0, 0)]
    while left:
        found, depth, includes = left.pop()
        spent.plans += 1
        if spent.plans > bounds.plans:
            raise QueryError(f"a query has at most {bounds.plans} queries within it")
        _check_plan(found, bounds)
        for place, top in top_expressions(found):
            if type(top) is Col:
                continue
            try:
                _check_expression(top, depth + 1, spent, left, includes)
            except QueryError as error:
                if error.path:
                    error.within(place)
                raise
        for source in found.sources if found.joins else (found.source,):
            if isinstance(source, Derived):
                left.append((source.query, depth + 1, includes))
        for include in found.include:
            spent.branches += len(include.branches)
            left.extend((branch.query, depth + 1, includes + 1) for branch in include.branches)
        if found.include and (includes >= bounds.includes_deep or spent.branches > bounds.includes):
            raise QueryError(f"a query has at most {bounds.includes} includes, at most {bounds.includes_deep} deep")


def check_size(query: BoundQuery, bounds: Bounds = BOUNDS) -> None:
    """See that ``query``, which is checked and in normal form, is not larger than a query may be.

    Raises:
        QueryError: It is.
    """
    given = sum(
        [
            len(value.encode()) if isinstance(value, str) else len(value)
            for value in query.params
            if isinstance(value, (str, bytes))
        ]
    )
    if given > bounds.parameters_bytes:
        raise QueryError(
            f"the values of a query have at most {bounds.parameters_bytes:,} bytes together, these have {given:,}; "
            "ask in several queries"
        )
    try:
        size = len(encode(query))
    except UnicodeEncodeError:
        raise QueryError("text in a query has a lone surrogate") from None
    if size > bounds.query_bytes:
        raise QueryError(
            f"a query has at most {bounds.query_bytes:,} bytes, this one has {size:,}; ask in several queries"
        )


def check_groups(count: int, bounds: Bounds = BOUNDS) -> None:
    """See that an answer has not more groups than it may have.

    Raises:
        QueryError: It has.
    """
    if count > bounds.groups:
        raise QueryError(f"an answer has at most {bounds.groups:,} groups; state a condition, or a limit")


def _check_plan(plan: Plan, bounds: Bounds) -> None:
    if len(plan.joins) >= bounds.sources:
        raise QueryError(f"a query reads at most {bounds.sources} stores together")
    if max(len(plan.columns or ()), len(plan.group), len(plan.order)) > bounds.columns:
        raise QueryError(f"a query has at most {bounds.columns} columns, and as many keys to group or to sort by")
    if plan.limit is not None and not 0 <= plan.limit <= INT64_MAX:
        raise QueryError(f"limit must be 0 or more, not {plan.limit}")
    if plan.offset < 0:
        raise QueryError(f"offset must be 0 or more, not {plan.offset}")
    if plan.offset > bounds.offset:
        raise QueryError(f"a query skips at most {bounds.offset:,} rows: go on behind a row, with after(page.end)")


def _check_expression(top: Expr, depth: int, spent: _Spent, plans: Within, includes: int) -> None:
    """Count what ``top`` takes, and add the plans within it to ``plans``."""
    bounds = spent.bounds
    left = [(top, depth)]
    while left:
        node, at = left.pop()
        if type(node) is Lit or type(node) is Param:
            spent.values += 1
            continue
        spent.conditions += 1
        if spent.conditions > bounds.conditions or at > bounds.depth:
            raise QueryError(
                f"a query has at most {bounds.conditions:,} conditions, nested at most {bounds.depth} deep"
            )
        if type(node) is Call:
            if node.fn in _BOUNDED:
                _check_call(node, spent)
        elif type(node) is Exists or type(node) is Scalar:
            plans.append((node.query, at + 1, includes))
        for part in reversed(parts(node)):
            if type(part) is Lit or type(part) is Param:
                spent.values += 1
            elif type(part) is not Col:
                left.append((part, at + 1))
        if spent.values > bounds.parameters:
            raise QueryError(f"a query compares with at most {bounds.parameters:,} values; ask in several queries")


def _check_call(call: Call, spent: _Spent) -> None:
    bounds = spent.bounds
    if call.fn == "in" and len(call.args) - 1 > bounds.values:
        raise QueryError(
            f"in_() takes at most {bounds.values:,} values, got {len(call.args) - 1:,}; ask in several queries",
            path="in",
        )
    if call.fn == "regex":
        spent.regexes += 1
        if spent.regexes > bounds.regexes:
            raise QueryError(f"a query has at most {bounds.regexes} regular expressions; join them with |")
    if call.fn != "in" and len(call.args) == 2:
        pattern = value_of(call.args[1], spent.params)
        if isinstance(pattern, str):
            spent.patterns += _pattern_bytes(call.fn, pattern, bounds)
        if spent.patterns > bounds.patterns_bytes:
            raise QueryError(f"the patterns of one query have at most {bounds.patterns_bytes:,} bytes together")


def _pattern_bytes(fn: str, pattern: str, bounds: Bounds) -> int:
    try:
        size = len(pattern.encode())
    except UnicodeEncodeError:
        raise QueryError(f"a pattern of {fn}() has a lone surrogate", path=fn) from None
    if size > bounds.pattern_bytes:
        raise QueryError(
            f"a pattern of {fn}() has at most {bounds.pattern_bytes} bytes, this one has {size:,}: look for a part of it",
            path=fn,
        )
    wildcards = 0 if fn == "regex" else sum(map(bool, _WILDCARDS.findall(pattern)))
    if wildcards > bounds.wildcards:
        raise QueryError(
            f"a pattern of like() has at most {bounds.wildcards} wildcards, this one has {wildcards}; "
            r"write \% and \_ for the characters themselves",
            path="like",
        )
    return size
