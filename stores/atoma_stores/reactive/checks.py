"""Whether a query can be followed on a store; told when it is opened, not at the first commit."""

from __future__ import annotations

from atoma.contracts.query import QuerySpec
from atoma.errors import QueryError
from atoma.query.check import check_query
from atoma.schema import StoreSpec


def checked(query: QuerySpec, store: StoreSpec[object]) -> QuerySpec:
    """``query`` with a total order, and each id once.

    Raises:
        QueryError: It counts instead of listing, names an unknown field or operator, asks what the type of a field has
            no answer for, or has a cursor of another order.
    """
    if query.count:
        raise QueryError("a live query lists rows; follow the rows and take their number")
    if query.ids is not None:
        return QuerySpec(ids=tuple(dict.fromkeys(query.ids)))
    return check_query(query, store)
