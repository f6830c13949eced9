"""Views for people's SQL and for tools that report: each store with its fields by name, in PostgreSQL's own types.

Tables hold values so that every database compares them alike. Here truth is ``boolean``, a moment ``timestamptz``, money ``numeric``,
and what was deleted softly is not shown. The views are in a schema of their own, so that they are called like the stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from atoma.contracts.values import HIDDEN
from atoma.schema.fields import Field
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.names import quote
from atoma_stores.sql.scripts import Execute

VIEWS_SCHEMA: Final = "atoma_views"
Column: TypeAlias = tuple[str, str]
"""The name of a column and its SQL."""
_CASTS: Final = {
    "time": "::timestamptz", "date": "::date", "clock": "::time", "uuid": "::uuid", "decimal": "::numeric", "json": "::json",
}  # fmt: skip


def view_of(store: str) -> str:
    """The view of a store, as SQL."""
    return f"{VIEWS_SCHEMA}.{quote(store)}"


def view_key(store: str) -> str:
    """Where ``meta`` says of which columns the view of a store is made."""
    return f"view:{store}"


def read_view(told: str) -> list[Column]:
    """The columns that ``meta`` tells."""
    return msgspec.json.decode(told, type=list[Column])


def tell_view(columns: list[Column]) -> str:
    """What :func:`read_view` reads."""
    return msgspec.json.encode(columns).decode()


def columns_of_view(store: StoreSpec[object], before: list[Column]) -> list[Column]:
    """The columns of the view of a store: those of before first where they are as they were, so that they need not go."""
    now = {name: _shown(field) for name, field in store.fields.items() if name != HIDDEN}
    kept = [(name, sql) for name, sql in before if now.get(name) == sql]
    if len(kept) < len(before):
        kept = []
    known = dict(kept)
    return [*kept, *((name, sql) for name, sql in now.items() if name not in known)]


def view_steps(store: StoreSpec[object], columns: list[Column], before: list[Column]) -> Iterator[Execute]:
    """The statements that make the view of a store; rights on it stay where columns are only added."""
    if columns[: len(before)] != before:
        yield drop_view(store.name)
    shown = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns)
    where = f" WHERE {quote(HIDDEN)} IS NULL" if store.soft_delete else ""
    yield Execute(
        f"CREATE OR REPLACE VIEW {view_of(store.name)} AS SELECT {shown} FROM {POSTGRESQL.store(store.name)}{where}"
    )


def drop_view(store: str) -> Execute:
    """The statement that takes the view of a store away, if there is one."""
    return Execute(f"DROP VIEW IF EXISTS {view_of(store)}")


def _shown(field: Field) -> str:
    """A column in PostgreSQL's own type."""
    column = quote(field.name)
    if field.wired:
        return column
    if field.boolean:
        return f"({column} <> 0)"
    if field.places is not None:
        return (
            f"({column} * {Decimal(1).scaleb(-field.places):f})::numeric(20, {field.places})"  # a quotient is rounded
        )
    if field.type == "duration":
        return f"({column} * interval '1 microsecond')"
    return f"{column}{_CASTS.get(field.type, '')}"
