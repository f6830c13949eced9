"""What a hub says that it understands of queries, when it greets: so a question that it cannot answer is not even sent."""

from __future__ import annotations

import msgspec

from atoma.contracts.functions import AGGREGATES, FUNCTIONS
from atoma.contracts.limits import Bounds
from atoma.contracts.query import PLAN_VERSION


class Understood(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one side understands of queries. One that says nothing, because it is older than plans, understands none.

    Attributes:
        plan: Versions of the form in which plans travel.
        functions: Names of the functions and aggregates that a plan may call.
        bounds: Bounds of a query that are lower than those of the table, by their names in :class:`Bounds`.
    """

    plan: tuple[int, ...] = ()
    functions: tuple[str, ...] = ()
    bounds: dict[str, int] = {}


def understood_with(bounds: Bounds) -> Understood:
    """What this code understands, kept to ``bounds``."""
    return Understood((PLAN_VERSION,), tuple(sorted({*FUNCTIONS, *AGGREGATES})), bounds.lower())


UNDERSTOOD = understood_with(Bounds())
"""What this code understands."""
