"""Views for hand-written SQL and reporting tools: each store with its fields by name, in PostgreSQL's own types.

Tables hold values in a form that every database compares alike. In the views, truth is ``boolean``, a moment ``timestamptz``,
money ``numeric``, and softly deleted rows are hidden. The views are in their own schema, so that they can have the names of the
stores.
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
    """Return the name of a store's view as SQL."""
    return f"{VIEWS_SCHEMA}.{quote(store)}"


def view_key(store: str) -> str:
    """Return the key in ``meta`` for the columns of a store's view."""
    return f"view:{store}"


def read_view(told: str) -> list[Column]:
    """Read the columns in an entry of ``meta``."""
    return msgspec.json.decode(told, type=list[Column])


def tell_view(columns: list[Column]) -> str:
    """Return the entry that :func:`read_view` reads."""
    return msgspec.json.encode(columns).decode()


def columns_of_view(store: StoreSpec[object], before: list[Column]) -> list[Column]:
    """Return the columns of a store's view: unchanged columns come first, so that the view need not be dropped."""
    now = {name: _shown(field) for name, field in store.fields.items() if name != HIDDEN}
    kept = [(name, sql) for name, sql in before if now.get(name) == sql]
    if len(kept) < len(before):
        kept = []
    known = dict(kept)
    return [*kept, *((name, sql) for name, sql in now.items() if name not in known)]


def view_steps(store: StoreSpec[object], columns: list[Column], before: list[Column]) -> Iterator[Execute]:
    """Return the statements that make the view of a store; its privileges stay if columns are only added."""
    if columns[: len(before)] != before:
        yield drop_view(store.name)
    shown = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns)
    where = f" WHERE {quote(HIDDEN)} IS NULL" if store.soft_delete else ""
    yield Execute(
        f"CREATE OR REPLACE VIEW {view_of(store.name)} AS SELECT {shown} FROM {POSTGRESQL.store(store.name)}{where}"
    )


def drop_view(store: str) -> Execute:
    """Return the statement that drops the view of a store, if there is one."""
    return Execute(f"DROP VIEW IF EXISTS {view_of(store)}")


def _shown(field: Field) -> str:
    """Return a column in PostgreSQL's own type."""
    column = quote(field.name)
    if field.wired:
        return column
    if field.boolean:
        return f"({column} <> 0)"
    if field.places is not None:
        return (
            f"({column} * {Decimal(1).scaleb(-field.places):f})::numeric(20, {field.places})"  # a division would round
        )
    if field.type == "duration":
        return f"({column} * interval '1 microsecond')"
    return f"{column}{_CASTS.get(field.type, '')}"
