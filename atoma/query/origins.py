"""Conditions in words that mean the same in every version of a schema, so that equal ones take in equal rows."""

from __future__ import annotations

from msgspec.structs import replace

from atoma.contracts.query import Call, Col, Expr
from atoma.query.spelling import in_order
from atoma.schema.schema import Schema


def by_origin(where: Expr, store: str, schema: Schema) -> Expr:
    """``where``, a checked condition on one row of ``store``, with its columns called by their origins; nobody can ask it.

    What a step has turned into other values is another column by then: two digests of what this gives are equal only where
    the conditions are, whichever version each was made in. See :meth:`Schema.origin`.
    """
    if isinstance(where, Col):
        return replace(where, name=schema.origin(store, where.name))
    if isinstance(where, Call):
        return in_order(where.fn, [by_origin(arg, store, schema) for arg in where.args])
    return where
