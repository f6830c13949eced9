"""Bringing a hub's log, its tombstones and its verdicts to today's version of the schema, by its steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from atoma.contracts.codec import encode
from atoma.errors import MigrationError
from atoma.schema.migrations import statements_of
from atoma.schema.schema import Schema
from atoma_stores.sql.dialect import Dialect, Write
from atoma_stores.sql.hub import tables
from atoma_stores.sql.hub.rows import turned_detail
from atoma_stores.sql.migrating import PORTION, Conversion
from atoma_stores.sql.scripts import Execute, Row, Script
from atoma_stores.sql.tables import Table

CONVERTED = "converted_heads"
"""Where a database tells up to where steps have converted its log, whose hashes are still those of what was."""
_CHANGES = (
    "SELECT b.scope, b.seq, b.idx, b.store, b.id, b.fields, b.pre, b.post FROM {{change}} b "
    "WHERE (b.scope, b.seq, b.idx)>({{p1}}, {{p2}}, {{p3}}) AND b.store {among} ORDER BY b.scope, b.seq, b.idx LIMIT {limit}"
)
_TOMBSTONES = (
    "SELECT d.scope, d.store, d.id, d.last FROM {{tombstone}} d WHERE (d.scope, d.store, d.id)>({{p1}}, {{p2}}, {{p3}}) "
    "AND d.store {among} ORDER BY d.scope, d.store, d.id LIMIT {limit}"
)
_VERDICTS = (
    "SELECT o.client, o.mid, o.detail FROM {{outcome}} o WHERE (o.client, o.mid)>({{p1}}, {{p2}}) AND o.detail IS NOT NULL "
    "ORDER BY o.client, o.mid LIMIT {limit}"
)


def convert_log(dialect: Dialect, conversion: Conversion, aside: Write) -> Script[None]:
    """Convert whatever a hub keeps beside its rows.

    Args:
        dialect: How it is written.
        conversion: Converts them.
        aside: Writes to the quarantine.
    """
    if not conversion.pasts:
        return
    yield from _convert_changes(dialect, conversion)
    yield from _convert_tombstones(dialect, conversion)
    yield from _convert_verdicts(dialect, conversion)
    rows = conversion.taken_aside()
    if rows:
        yield [aside.of(rows)]


def note_heads(dialect: Dialect) -> Script[str]:
    """The head of every scope, as :data:`CONVERTED` is noted and :func:`read_heads` reads it."""
    (rows,) = yield [Execute(dialect.render("SELECT s.scope, s.head FROM {scope} s"))]
    return json.dumps(dict(cast("Sequence[tuple[str, int]]", rows)))


def read_heads(noted: str) -> Mapping[str, int]:
    """By scope, up to which sequence steps have converted a log."""
    return msgspec.json.decode(noted, type=dict[str, int])


def check_statements(dialect: Dialect, schema: Schema, since: int, is_there: Callable[[str], bool]) -> Script[None]:
    """Refuse statements among the steps: a store that has rows at a hub replicates, and in one without there is nothing to do.

    Args:
        dialect: How it is written.
        schema: The declared stores.
        since: The version that the hub is in.
        is_there: Whether a store has a table.

    Raises:
        MigrationError: There is one.
    """
    for step in statements_of(schema.steps, since):
        if not is_there(step.store):
            continue
        (rows,) = yield [Execute(f"SELECT 1 FROM {dialect.store(step.store)} LIMIT 1")]
        if rows:
            raise replicates(step.store, step.statement)


def replicates(store: str, statement: str) -> MigrationError:
    """What is said of a statement for a store whose rows are elsewhere, too."""
    return MigrationError(
        f"store {store!r} replicates: its rows are in the hub's log and on other devices as well, where no "
        f"statement reaches them; say it with Convert, Split or Drop instead of Sql({statement!r})"
    )


def _paged(dialect: Dialect, template: str) -> str:
    return dialect.render(template.format(among=dialect.among(dialect.place(4)), limit=PORTION))


def _convert_changes(dialect: Dialect, conversion: Conversion) -> Script[None]:
    page, put = _paged(dialect, _CHANGES), _update(dialect, tables.CHANGE, "fields", "pre", "post")
    stores = dialect.bind(("TEXT",), [(name,) for name in conversion.pasts])
    after: Row = ("", -1, -1)
    while True:
        (found,) = yield [Execute(page, (*after, *stores))]
        turned: list[Row] = []
        for scope, seq, idx, store, id, fields, pre, post in cast(
            "Sequence[tuple[str, int, int, str, str, str | None, bytes | None, bytes | None]]", found
        ):
            names = None if fields is None else conversion.names(store, fields)
            images = [
                None if image is None else conversion.image(what, store, id, image)
                for what, image in (("", pre), ("an entry of the log", post))
            ]
            turned.append((scope, seq, idx, names, *images))
        if turned:
            yield [put.of(turned)]
        if len(found) < PORTION:
            return
        after = found[-1][:3]


def _convert_tombstones(dialect: Dialect, conversion: Conversion) -> Script[None]:
    page, put = _paged(dialect, _TOMBSTONES), _update(dialect, tables.TOMBSTONE, "last")
    stores = dialect.bind(("TEXT",), [(name,) for name in conversion.pasts])
    after: Row = ("", "", "")
    while True:
        (found,) = yield [Execute(page, (*after, *stores))]
        if found:
            yield [
                put.of([
                    (scope, store, id, conversion.image("", store, id, last) or encode({}))
                    for scope, store, id, last in cast("Sequence[tuple[str, str, str, bytes]]", found)
                ])
            ]  # fmt: skip
        if len(found) < PORTION:
            return
        after = found[-1][:3]


def _convert_verdicts(dialect: Dialect, conversion: Conversion) -> Script[None]:
    page, put = dialect.render(_VERDICTS.format(limit=PORTION)), _update(dialect, tables.OUTCOME, "detail")
    after: Row = (-1, -1)
    while True:
        (found,) = yield [Execute(page, after)]
        if found:
            rows = cast("Sequence[tuple[int, int, bytes]]", found)
            yield [put.of([(client, mid, turned_detail(detail, conversion.conflict)) for client, mid, detail in rows])]
        if len(found) < PORTION:
            return
        after = found[-1][:2]


def _update(dialect: Dialect, table: Table, *columns: str) -> Write:
    return dialect.update(dialect.table(table.name), table.of(*table.key), table.of(*columns))
