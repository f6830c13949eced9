"""How a query is followed: the tier, the reason, and by which values of a changed row its view is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from atoma.contracts.query import Agg, BoundQuery, Call, Col, Exists, Expr, Plan, Scalar, Store
from atoma.ports.live import ResultRow
from atoma.query.compiled import condition
from atoma.query.functions import MEANINGS
from atoma.query.normal import rebind
from atoma.query.walk import expressions, plans, stores_of, top_expressions
from atoma.schema import Schema
from atoma_stores.changes import RowChange
from atoma_stores.live.index import ANY_ROW, Needs, needs_of
from atoma_stores.live.operators.listing import Listing
from atoma_stores.live.operators.operator import Operator
from atoma_stores.live.operators.rerun import Rerun, Test


@dataclass(frozen=True, slots=True)
class Planned:
    """How one query is followed.

    Attributes:
        operator: What keeps its result up.
        needs: By which values of the rows of each store its view is found.
        tier: 0: in Python, from the changed rows. 2: it is asked again when a change may concern it.
        reason: Why, in words.
    """

    operator: Operator
    needs: Mapping[str, Needs]
    tier: int
    reason: str


def checked(query: BoundQuery, schema: Schema) -> BoundQuery:
    """``query`` in normal form.

    Raises:
        QueryError: It does not fit the schema.
        UnknownStore: It reads a store that is not declared.
    """
    return rebind(query, schema.store)


def plan_view(query: BoundQuery, schema: Schema, least: int = 0) -> Planned:
    """How ``query``, which was checked, is followed.

    Args:
        query: The query.
        schema: The declared stores.
        least: The lowest tier that may be taken.
    """
    foreign = "" if query.plan.whole_rows else "its rows are not whole rows of one store"
    foreign = foreign or _beyond_python(query.plan)
    if foreign or least > 0:
        return asked_again(query, foreign or "that was chosen")
    plan, needs = query.plan, needs_of(query)
    kept = "all rows are kept" if plan.limit is None else f"{plan.limit} rows and a few behind them are kept"
    return Planned(
        Listing(query, schema.store(query.store)),
        {query.store: needs},
        0,
        f"follows the changed rows in Python; {kept}; found by {needs}",
    )


def asked_again(query: BoundQuery, why: str, rows: tuple[ResultRow, ...] | None = None) -> Planned:
    """``query`` asked again whenever a change may concern it.

    Args:
        query: The query.
        why: Why it is not followed at a lower cost.
        rows: What it was told last; None before the first time.
    """
    plan = query.plan
    read = Counter(stores_of(plan))
    tests: dict[str, Test | None] = dict.fromkeys(read, _by_columns(plan))
    needs = dict.fromkeys(read, ANY_ROW)
    source = plan.source
    if isinstance(source, Store) and read[source.name] == 1:  # what its rows must have is said by the plan itself
        needs[source.name] = needs_of(query)
        if len(read) == 1 and not _beyond_python(Plan(source, where=plan.where)):
            tests[source.name] = _by_condition(query, tests[source.name])
    return Planned(Rerun(query, tests, rows), needs, 2, f"asked again: {why}")


def _by_columns(plan: Plan) -> Test | None:
    """Whether a change reaches a column that ``plan`` looks at; None where whole rows are told, so that every one does."""
    if plan.columns is None:
        return None
    tops = [top for each in plans(plan) for _, top in top_expressions(each)]
    names = {expr.name for top in tops for expr in expressions(top) if isinstance(expr, Col)}

    def reaches(change: RowChange) -> bool:
        old, new = change
        if old is None or new is None:
            return True
        return any(old.image.get(name) != new.image.get(name) for name in names)

    return reaches


def _by_condition(query: BoundQuery, reaches: Test | None) -> Test:
    """Whether a row that has changed fits what ``query`` asks for, or did."""
    fits = condition(query.plan.where, query.params)

    def concerns(change: RowChange) -> bool:
        old, new = change
        fitting = (old is not None and fits(old)) or (new is not None and fits(new))
        return bool(fitting) and (reaches is None or bool(reaches(change)))

    return concerns


def _beyond_python(plan: Plan) -> str:
    """Why the expressions of ``plan`` cannot be evaluated on a row in Python; ``""`` when they can."""
    for place, top in top_expressions(plan):
        for expr in expressions(top):
            why = _beyond(expr)
            if why:
                return f"{place} {why}"
    return ""


def _beyond(expr: Expr) -> str:
    match expr:
        case Call(fn=fn) if fn not in MEANINGS:
            return f"calls {fn}(), which SQLite alone knows"
        case Agg() | Exists() | Scalar():
            return "looks at more than one row"
        case Col(source=source) if source != 0:
            return "looks at more than one row"
        case _:
            return ""
