"""The hub's scripts are written once: every text in both dialects, and nothing of one in the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from atoma.ports.hub import HubIdentity, Need
from atoma_stores.sql.dialect import POSTGRESQL, SQLITE, Dialect, Lookup, Write
from atoma_stores.sql.hub import epochs, upkeep
from atoma_stores.sql.hub.effects import EffectQueries
from atoma_stores.sql.hub.facts import FactQueries, load
from atoma_stores.sql.hub.reads import ReadQueries
from atoma_stores.sql.hub.rows import stores_of
from atoma_stores.sql.hub.tables import CLIENT, SCOPE, TABLES
from atoma_stores.sql.scripts import Execute, Row, Script
from atoma_stores.sql.tables import SqlColumns
from tests.unit.hub.kit import SCHEMA

FOREIGN = {
    "SQLite": re.compile(
        r"\?|json_each|->|unhex|sqlite_|\bSTRICT\b|ROWID|AUTOINCREMENT|INSERT OR|CROSS JOIN|\bIS \?|x'|LIMIT -1|_atoma_hub_(?!\w+ ON )"
        r"|\bm(?:in|ax)\([^()]*,"
    ),
    "PostgreSQL": re.compile(
        r"\$\d|unnest|::|nextval|\bleast\(|\bgreatest\(|FOR UPDATE|ORDINALITY|bytea|atoma(?:_hub)?\."
    ),
}


def texts(dialect: Dialect) -> dict[str, str]:
    """Every text by where it comes from."""
    stores = stores_of(dialect, SCHEMA)
    found = {f"create {table.name} {at}": sql for table in TABLES for at, sql in enumerate(dialect.create(table))}
    for owner in (FactQueries(dialect, stores), EffectQueries(dialect, stores), ReadQueries(dialect, SCHEMA, stores)):
        found.update(_of(type(owner).__name__, vars(owner)))
    forgets = EffectQueries(dialect, stores).forgets
    found.update(_of("Forgetting", vars(forgets)))
    for name, store in stores.items():
        found.update(_of(name, {attribute: getattr(store, attribute) for attribute in store.__slots__}))
    for name, script in _scripts(dialect):
        for at, execute in enumerate(_sent(script)):
            found[f"{name} {at}"] = execute
    return found


def _of(owner: str, values: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Lookup | Write | Execute):
            yield f"{owner}.{name}", value.sql
        elif isinstance(value, str) and " " in value:
            yield f"{owner}.{name}", value
        elif isinstance(value, list):
            parts = cast("list[object]", value)
            yield from _of(owner, {f"{name} {at}": part for at, part in enumerate(parts)})


def _scripts(dialect: Dialect) -> Iterator[tuple[str, Script[object]]]:
    yield "info", epochs.info(dialect)
    yield "begin", epochs.begin(dialect, HubIdentity(b"h", b"e", b"k"), 1)
    yield "end_epoch", epochs.end_epoch(dialect, b"f", 1, "offer", deletes=True)
    yield "ended_epochs", epochs.ended_epochs(dialect)
    yield "absent_clients", epochs.absent_clients(dialect, b"e")
    yield "permit", epochs.permit(dialect, b"e", "deletes")
    yield "raise_floors", upkeep.raise_floors(dialect, 1, 1, ["main"])
    yield "check_clock", upkeep.check_clock(dialect, 2, 1, 1)
    yield "raise_forgotten", upkeep.raise_forgotten(dialect, 1)
    for chore in upkeep.chores(dialect, {"main": 1}, 1, 1):
        yield chore.what, chore.part()


def _sent(script: Script[object]) -> list[str]:
    """What a script sends to a database that has one row of everything."""
    sent: list[str] = []
    try:
        batch = next(script)
        while True:
            sent += [statement.sql for statement in batch]
            batch = script.send([_row(statement.sql) for statement in batch])
    except StopIteration:
        return sent


def _row(sql: str) -> Sequence[Row]:
    if "max(" in sql:
        return [(1,)]
    if "WITH wanted" in sql:
        return [("main", 1, b"h")]
    if "a.digest FROM" in sql:
        return [(1, b"n")] if "a.client," in sql else [("local", 0, b"n")]
    if "expired_count" in sql:
        return [("local", 0, 1, b"c")]
    if ".idem FROM" in sql:
        return [("local", "key")]
    if "hub_id" in sql:
        return [(b"h", b"e", b"k", 1, 1)]
    return []


@pytest.mark.parametrize(
    ("dialect", "other"), [(SQLITE, "PostgreSQL"), (POSTGRESQL, "SQLite")], ids=["SQLite", "PostgreSQL"]
)
def test_a_dialect_has_nothing_of_the_other(dialect: Dialect, other: str) -> None:
    found = texts(dialect)
    assert len(found) > 100
    assert {where: sql for where, sql in found.items() if FOREIGN[other].search(sql) or "{" in sql} == {}


def test_both_dialects_have_every_text() -> None:
    """One counts commits, to know its file again; the other locks, and counts nothing that everybody would wait for."""
    only = texts(SQLITE).keys() ^ texts(POSTGRESQL).keys()
    assert only == {"EffectQueries.counted 0", "end_epoch 7", "raise_floors 3"}


def test_keys_are_one_list_in_one_dialect_and_a_list_for_each_column_in_the_other() -> None:
    columns: SqlColumns = {"client": "BLOB", "mid": "INTEGER", "name": "TEXT"}
    types = list(columns.values())
    keys = [(b"\x00\xff", 7, "ä\0'"), (b"", -1, "")]
    assert SQLITE.bind(types, keys) == ('[["00ff",7,"ä\\u0000\'"],["",-1,""]]',)
    assert POSTGRESQL.bind(types, keys) == ([b"\x00\xff", b""], [7, -1], ["ä\0'", ""])
    assert re.findall(r"\?\d", SQLITE.keys(columns)) == ["?1"]
    assert re.findall(r"\$\d", POSTGRESQL.keys(columns)) == ["$1", "$2", "$3"]


def test_rows_are_locked_where_several_write_scopes_by_name_before_clients_by_id() -> None:
    assert SQLITE.lock(SCOPE, "scope", ["a"]) == ()
    assert POSTGRESQL.lock(SCOPE, "scope", []) == ()
    (scopes,) = POSTGRESQL.lock(SCOPE, "scope", ["a", "b"])
    (clients,) = POSTGRESQL.lock(CLIENT, "client_id", [b"c"])
    assert scopes.sql == "SELECT 1 FROM atoma_hub.scope WHERE scope=ANY($1::text[]) ORDER BY scope FOR UPDATE"
    assert (
        clients.sql == "SELECT 1 FROM atoma_hub.client WHERE client_id=ANY($1::bytea[]) ORDER BY client_id FOR UPDATE"
    )
    assert scopes.values == (["a", "b"],)


def test_a_group_locks_before_it_reads() -> None:
    """What stands before a lock shows the rows as they were before whoever was waited for."""
    needs = [
        Need(client_id=b"c", mids=(1,), scope=scope, rows=(("cards", "1"),), since=1, author=b"c") for scope in "ba"
    ]
    batch = next(load(FactQueries(POSTGRESQL, stores_of(POSTGRESQL, SCHEMA)), needs))
    assert [statement.sql.endswith("FOR UPDATE") for statement in batch[:3]] == [True, True, False]
    assert batch[0].values == (["a", "b"],)  # type: ignore[union-attr]
    assert not any("FOR UPDATE" in statement.sql for statement in batch[2:])
