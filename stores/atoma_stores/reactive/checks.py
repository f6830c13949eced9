"""Whether a query can be followed; told when it is opened, not at the first commit."""

from __future__ import annotations

from atoma.contracts.query import BoundQuery
from atoma.errors import QueryError
from atoma.query.normal import rebind
from atoma.query.walk import inner_plans
from atoma.schema import Schema


def checked(query: BoundQuery, schema: Schema) -> BoundQuery:
    """``query`` in normal form.

    Raises:
        QueryError: It does not fit the schema, or does something other than list rows of one store.
        UnknownStore: It reads a store that is not declared.
    """
    bound = rebind(query, schema.store)
    if not bound.plan.whole_rows or any(inner_plans(bound.plan)):
        raise QueryError("a live query lists rows of one store; follow the rows and take their number")
    return bound
