"""A query as it was written, checked against a schema: as plain data, with the way back for the rows of its answer."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.query import BoundQuery
from atoma.errors import QueryError
from atoma.query.bounds import check_size
from atoma.query.builder import Query, Rows
from atoma.query.decoding import ReadAll, Reader, all_reader_of, reader_of
from atoma.query.normal import bind_columns, lifted
from atoma.query.seek import decode_cursor, seek, with_keys
from atoma.query.templates import TEMPLATES_MAX, Template, shape_of
from atoma.schema.schema import Schema

R = TypeVar("R")


class Asked(msgspec.Struct, Generic[R], frozen=True):
    """A query that was checked.

    Attributes:
        schema: What it was checked against.
        query: It as plain data, in normal form.
        read: Makes an ``R`` of a row of the answer.
        read_all: Makes one of each row.
    """

    schema: Schema
    query: BoundQuery
    read: Reader
    read_all: ReadAll


def asked(query: Query[R], schema: Schema) -> Asked[R]:
    """Check ``query`` against ``schema``; a query that is kept as a constant is checked once.

    Raises:
        QueryError: No query, unknown field, a value of the wrong type, a negative limit, a cursor of another query.
        UnknownStore: The schema does not declare the store.
    """
    kind = type(query)
    if kind is not Rows and not is_a(query, Query):  # the first is quick: every read comes this way
        raise QueryError(f"a query is made with select(STORE), for example select(CARDS).limit(20); {query!r} is none")
    kept = query.kept.get(id(schema))
    if not isinstance(kept, Asked) or kept.schema is not schema:
        kept = query.kept[id(schema)] = _found(query, schema)
    return cast("Asked[R]", kept)


def bind(query: Query[R], schema: Schema) -> BoundQuery:
    """``query`` as plain data, in normal form; see :func:`asked`."""
    return asked(query, schema).query


def _found(query: Query[R], schema: Schema) -> Asked[R]:
    """``query``, checked as far as none of its shape was."""
    shape = None if query.cursor or not query.forward else shape_of(query.parts)
    if shape is None:
        return _ask(query, schema)
    known = schema.templates.get(shape.key)
    if isinstance(known, Template) and known.spec is shape.spec:
        bound = known.asked_with(shape.values)
        if bound is not None:
            return Asked(schema, bound, known.read, known.read_all)
    found = _ask(query, schema)
    if shape.key not in schema.templates:
        if len(schema.templates) >= TEMPLATES_MAX:
            schema.templates.clear()
        schema.templates[shape.key] = shape.template(found.query, found.read, found.read_all)
    return found


def _ask(query: Query[R], schema: Schema) -> Asked[R]:
    plan, columns = bind_columns(query.plan, schema.store)
    found = lifted(with_keys(plan))
    if query.cursor or not query.forward:
        place = _place(query, found) if query.cursor else ()
        plan, columns = bind_columns(seek(query.plan, place, forward=query.forward), schema.store)
        found = lifted(with_keys(plan))
    check_size(found)
    read = reader_of(query.parts, plan, columns, schema.store)
    return Asked(schema, found, read, all_reader_of(query.parts, plan, read, schema.store))


def _place(query: Query[R], bound: BoundQuery) -> tuple[object, ...]:
    try:
        return decode_cursor(query.cursor, bound)
    except QueryError as error:
        error.within("after" if query.forward else "before")
        raise
