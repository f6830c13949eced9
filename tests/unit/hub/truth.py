"""What has to hold of a hub's tables whatever happened, by SQL alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from atoma.schema import Schema
from atoma_stores.sql.dialect import SQLITE
from atoma_stores.sql.hub.rows import StoreSql, stores_of
from tests.unit.hub.homes import Home, is_sqlite

Row = tuple[object, ...]


def _asked(home: Home, template: str) -> list[Row]:
    return home.ask(template)


def check_truth(home: Home, schema: Schema) -> None:
    """Sequences are dense up to the head, hashes lead from one to the next, and every verdict has its transaction once."""
    heads = dict(cast("list[tuple[str, int]]", _asked(home, "SELECT scope, head FROM {scope}")))
    log: dict[str, list[tuple[int, bytes, int, int, int]]] = {scope: [] for scope in heads}
    for scope, seq, hash_, author, mid, count in cast(
        "list[tuple[str, int, bytes, int, int, int]]",
        _asked(home, "SELECT scope, seq, hash, author, mid, n FROM {tx} ORDER BY scope, seq"),
    ):
        log[scope].append((seq, hash_, author, mid, count))
    for scope, entries in log.items():
        assert [seq for seq, *_ in entries] == list(range(1, heads[scope] + 1)), f"{scope}: lost or skipped"
    written = [(author, mid) for entries in log.values() for _, _, author, mid, _ in entries if author]
    assert len(written) == len(set(written)), "decided twice"
    ends = dict(cast("list[tuple[str, bytes]]", _asked(home, "SELECT scope, head_hash FROM {scope}")))
    assert all(entries[-1][1] == ends[scope] for scope, entries in log.items() if entries)
    assert len({hash_ for entries in log.values() for _, hash_, *_ in entries}) == sum(heads.values())
    applied = _asked(home, "SELECT client, mid, scope, seq FROM {outcome} WHERE status='applied'")
    logged = {(author, mid): (scope, seq) for scope, entries in log.items() for seq, _, author, mid, _ in entries}
    for client, mid, scope, seq in cast("list[tuple[int, int, str, int]]", applied):
        assert logged.get((client, mid), (scope, seq)) == (scope, seq)
    assert set(written) <= {(row[0], row[1]) for row in applied}
    counts = _asked(home, "SELECT client, max(mid), count(*) FROM {outcome} GROUP BY client")
    last = dict(cast("list[tuple[int, int]]", _asked(home, "SELECT number, last_mid FROM {client}")))
    assert all(last[client] == top == count for client, top, count in cast("list[tuple[int, int, int]]", counts))
    _check_rows(home, schema)


def _check_rows(home: Home, schema: Schema) -> None:
    """Rows are what the log comes to."""
    stores = stores_of(SQLITE, schema)
    folded: dict[tuple[str, str, str], bytes | None] = {}
    for scope, store, id, post in cast(
        "list[tuple[str, str, str, bytes | None]]",
        _asked(home, "SELECT scope, store, id, post FROM {change} ORDER BY scope, seq, idx"),
    ):
        folded[scope, store, id] = post
    for name, table in stores.items():
        wanted = {
            (scope, id): table.unpack(post)
            for (scope, of, id), post in folded.items()
            if of == name and post is not None
        }
        assert rows_of_store(home, table) == wanted, name


def rows_of_store(home: Home, store: StoreSql) -> dict[tuple[str, str], object]:
    """The rows of a store as its table has them."""
    columns: Sequence[str] = store.columns
    table = f'"{store.name}"' if is_sqlite(home) else f'atoma."{store.name}"'
    names = ", ".join(f'"{column}"' for column in columns)
    found = cast("list[tuple[str, str, *tuple[object, ...]]]", _asked(home, f"SELECT _scope, id, {names} FROM {table}"))
    return {(scope, id): dict(zip(columns, values, strict=True)) for scope, id, *values in found}
