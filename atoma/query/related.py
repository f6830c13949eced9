"""The relations of a schema, checked before anybody asks: whether they fit the stores, and what they are looked up by."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

from atoma.contracts.checks import is_a
from atoma.contracts.query import Col
from atoma.errors import QueryError, SchemaError, UnknownStore
from atoma.query.binding import asked
from atoma.query.builder import select
from atoma.query.indexes import spelled
from atoma.schema.indexes import Index
from atoma.schema.relations import AnyRelation, Many, Relation
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

_log = logging.getLogger("atoma.query")


def check_relations(schema: Schema) -> None:
    """Check that they fit the stores; an index that one of them lacks is logged, as the line to add.

    Raises:
        SchemaError: Something is not a relation, or one is between stores that the schema does not declare, or its columns cannot be
            compared.
    """
    missing: dict[str, None] = {}
    for relation in schema.relations:
        if not is_a(relation, Relation):
            raise SchemaError(f"Schema(relations=…) takes relations, has_many(CARDS, REMARKS, …), not {relation!r}")
        said = f"relation {relation.name!r} of store {relation.parent.name!r}"
        for spec in (relation.parent, *[child for _, child in relation.children]):
            if schema.stores.get(spec.name) is not spec:
                raise SchemaError(
                    f"{said}: the schema does not declare this store {spec.name!r}; Schema({spec.name.upper()}, …)"
                )
        try:
            # one or many makes no difference to what is checked
            asked(select(relation.parent).include(cast("Many[Any, object]", relation)), schema)
        except (QueryError, UnknownStore) as error:
            raise SchemaError(f"{said}: {error}") from None
        for store, fields in _looked_up(relation, schema):
            if not _is_indexed(store, fields):
                missing[f"{said} reads every row of {store.name!r}; add {spelled(Index(*fields))} to it"] = None
    for line in missing:
        _log.warning("%s", line)


def _looked_up(relation: AnyRelation, schema: Schema) -> Iterator[tuple[StoreSpec[Any], Sequence[str]]]:
    """The stores in which rows are looked for, each with the fields that tell them."""
    if relation.through is not None:
        yield schema.store(relation.through.store), (relation.through.parent,)
    for _, child in relation.children:
        yield child, [below for _, below in relation.keys]


def _is_indexed(store: StoreSpec[Any], fields: Sequence[str]) -> bool:
    wanted = {Col(0, name) for name in fields}
    begins = [{key.expr for key in index.keys[: len(wanted)]} for index in store.indexes if index.where is None]
    return "id" in fields or wanted in begins
