"""Whether a query can be followed; told when it is opened, not at the first commit."""

from __future__ import annotations

from atoma.contracts.query import BoundQuery
from atoma.errors import QueryError
from atoma.query.normal import rebind
from atoma.query.plans import NOT_FOLLOWED, lists_one_store
from atoma.schema import Schema


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
