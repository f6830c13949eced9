"""How a query is followed: the tier, the reason, and by which values of a changed row its view is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoma.contracts.query import Agg, BoundQuery, Call, Col, Exists, Expr, Plan, Scalar
from atoma.contracts.values import StoredRow
from atoma.errors import QueryError
from atoma.query.compiled import condition
from atoma.query.functions import MEANINGS
from atoma.query.normal import rebind
from atoma.query.plans import NOT_FOLLOWED, lists_one_store
from atoma.query.walk import expressions, top_expressions
from atoma.schema import Schema
from atoma_stores.live.index import Needs, needs_of
from atoma_stores.live.operators.listing import Listing
from atoma_stores.live.operators.operator import Operator
from atoma_stores.live.operators.rerun import Rerun


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
        QueryError: It does not fit the schema, or does something other than list rows of one store.
        UnknownStore: It reads a store that is not declared.
    """
    bound = rebind(query, schema.store)
    if not lists_one_store(bound.plan):
        raise QueryError(NOT_FOLLOWED)
    return bound


def plan_view(query: BoundQuery, schema: Schema, least: int = 0) -> Planned:
    """How ``query``, which was checked, is followed.

    Args:
        query: The query.
        schema: The declared stores.
        least: The lowest tier that may be taken.
    """
    foreign = _beyond_python(query.plan)
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


def asked_again(query: BoundQuery, why: str, rows: tuple[StoredRow, ...] | None = None) -> Planned:
    """``query`` asked again whenever a change may concern it.

    Args:
        query: The query.
        why: Why it is not followed at a lower cost.
        rows: What it was told last; None before the first time.
    """
    test = None if _beyond_python(query.plan) else condition(query.plan.where, query.params)
    return Planned(Rerun(query, {query.store: test}, rows), {query.store: needs_of(query)}, 2, f"asked again: {why}")


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
