"""Queries of one shape, which differ only in their values: what was found out for one of them holds for all."""

from __future__ import annotations

from weakref import WeakValueDictionary

from atoma.contracts.query import BoundQuery, Param, Plan
from atoma.query.walk import expressions
from atoma.schema import Schema
from atoma_stores.live.index import needs_of
from atoma_stores.live.operators.listing import Listing
from atoma_stores.live.planner import Planned, checked, plan_view


class Family:
    """The queries that share one plan in normal form.

    The plan is checked once and read by one prepared statement. If the members are listings whose values are used only in
    their conditions, they also share the functions that make, order and identify their rows.

    Attributes:
        types: The types of its values.

    Args:
        query: The member that is planned first.
        planned: The way in which it is followed.
    """

    __slots__ = ("__weakref__", "_reason", "_shape", "types")

    def __init__(self, query: BoundQuery, planned: Planned) -> None:
        self.types = _types_of(query)
        self._reason = planned.reason
        self._shape = planned.operator.shape if isinstance(planned.operator, Listing) else None
        if _is_made_of_values(query.plan):
            self._shape = None

    def planned(self, query: BoundQuery) -> Planned | None:
        """Return how ``query``, another member, is followed; None if each member has to be planned."""
        if self._shape is None:
            return None
        return Planned(Listing(self._shape, query.params), {query.store: needs_of(query)}, 0, self._reason)


class Families:
    """The families of the queries that are followed.

    Args:
        schema: The declared stores.
        least_tier: The lowest tier that a query may be followed at.
    """

    def __init__(self, schema: Schema, least_tier: int) -> None:
        self._schema = schema
        self._least_tier = least_tier
        self._known: WeakValueDictionary[Plan, Family] = WeakValueDictionary()

    def checked(self, query: BoundQuery) -> BoundQuery:
        """Return ``query`` in normal form; if its plan is followed already, it was checked with that.

        Raises:
            QueryError: It does not fit the schema.
            UnknownStore: It reads a store that is not declared.
        """
        family = self._known.get(query.plan)
        return query if family is not None and family.types == _types_of(query) else checked(query, self._schema)

    def plan(self, query: BoundQuery) -> tuple[Planned, Family]:
        """Return how ``query``, which was checked, is followed, and its family, which lives as long as somebody holds it."""
        family = self._known.get(query.plan)
        planned = None if family is None else family.planned(query)
        if planned is None:
            planned = plan_view(query, self._schema, self._least_tier)
        if family is None:
            family = self._known[query.plan] = Family(query, planned)
        return planned, family


def _types_of(query: BoundQuery) -> tuple[type, ...]:
    return tuple(map(type, query.params))


def _is_made_of_values(plan: Plan) -> bool:
    """Whether the values of a query decide what its rows show or how they are sorted."""
    shown = [named.expr for named in plan.columns or ()] + [each.expr for each in plan.order]
    return any(isinstance(expr, Param) for top in shown for expr in expressions(top))
