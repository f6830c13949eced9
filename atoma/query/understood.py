"""Whether the other side understands a query, or what a write does: asked before anything is sent."""

from __future__ import annotations

from collections.abc import Collection

from atoma.contracts.limits import Bounds
from atoma.contracts.query import PLAN_VERSION, Agg, BoundQuery, Call
from atoma.contracts.understood import Understood
from atoma.errors import QueryError, RemoteError
from atoma.query.bounds import check_bounds, check_size
from atoma.query.walk import expressions, plans, top_expressions


def check_understood(query: BoundQuery, told: Understood) -> None:
    """See that a side which ``told`` what it understands can answer ``query``.

    Raises:
        RemoteError: ``UNSUPPORTED``: it knows another form of plans, or not a function of this one (``info["function"]``),
            or has lower bounds; nothing was sent.
    """
    if PLAN_VERSION not in told.plan:
        versions = f"of version {', '.join(map(str, told.plan))}" if told.plan else "of none"
        raise _unsupported(f"the hub understands plans {versions}, and this is one of version {PLAN_VERSION}")
    known = frozenset(told.functions)
    for plan in plans(query.plan):
        for place, top in top_expressions(plan):
            for expr in expressions(top):
                if isinstance(expr, (Call, Agg)) and expr.fn not in known:
                    raise _unsupported(f"{place}: the hub does not know the function {expr.fn}()", function=expr.fn)
    if told.bounds:
        try:
            bounds = Bounds.lowered(told.bounds)
            check_bounds(query.plan, bounds, query.params)
            check_size(query, bounds)
        except QueryError as error:
            raise _unsupported(str(error)) from None


def check_edits_understood(edits: Collection[str], told: Understood) -> None:
    """See that a side which ``told`` what it understands knows these kinds of edits.

    Raises:
        RemoteError: ``PROTO_UNSUPPORTED``: it would pass over one, and tell that it had written.
    """
    unknown = sorted(set(edits).difference(told.edits))
    if unknown:
        message = f"the hub does not know the edits {', '.join(unknown)} of counters, sets, maxima, minima and texts; upgrade the hub"
        raise RemoteError(message, remote_code="PROTO_UNSUPPORTED")


def _unsupported(text: str, **info: str) -> RemoteError:
    return RemoteError(text, remote_code="UNSUPPORTED", info=info or None)
