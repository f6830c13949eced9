"""What the hub reads, each in one snapshot: pages of the log, scans of a scope, direct queries."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import apsw

from atoma.contracts.query import BoundQuery
from atoma.contracts.sync import Outcome, Place
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.contracts.versions import Versions
from atoma.ports.hub import Lineage, LoggedChange, LogPage, RowKey, ScanPage, ScopeState
from atoma.ports.hub_queries import QueryPage
from atoma.query.plans import ids_of, is_count
from atoma.schema.spec import Schema, StoreSpec
from atoma_stores.sql.names import quote
from atoma_stores.sql.select import Compiler, row_columns
from atoma_stores.sqlite.hub_decisions import read_image, read_outcome, read_scope
from atoma_stores.sqlite.hub_epochs import ended_at, load_epoch, load_word, read_versions
from atoma_stores.sqlite.hub_tables import StoreStatements

OUTCOMES_MAX = 1_000
_OUTCOMES = """SELECT o.mid, o.status, o.scope, o.seq, o.detail FROM _atoma_hub_outcome o
    WHERE o.client=(SELECT number FROM _atoma_hub_client WHERE client_id=? AND principal=?)
    AND o.mid>? AND o.scope IN (?, '') ORDER BY o.mid LIMIT ?"""

_UNFINISHED = """WITH RECURSIVE logged(scope) AS (SELECT min(scope) FROM _atoma_hub_tx
    UNION ALL SELECT (SELECT min(scope) FROM _atoma_hub_tx WHERE scope>logged.scope) FROM logged WHERE scope IS NOT NULL)
    SELECT l.scope FROM logged l LEFT JOIN _atoma_hub_scope s ON s.scope=l.scope WHERE l.scope IS NOT NULL
    AND (SELECT max(seq) FROM _atoma_hub_tx WHERE scope=l.scope)>coalesce(s.head, 0)"""


def read_page(
    connection: apsw.Connection,
    scope: str,
    start: int,
    *,
    max_bytes: int,
    max_changes: int,
    client: tuple[bytes, str],
    outcomes_after: int,
) -> LogPage:
    """The log of ``scope`` after ``start``, cut between transactions, with the client's outcomes."""
    epoch = load_epoch(connection)
    state = read_scope(connection, scope)
    start_hash = _hash_at(connection, state, start)
    if start_hash is None:
        return LogPage(epoch, state, None, start, b"")
    end, end_hash = _end_of_page(connection, scope, start, start_hash, max_bytes, max_changes)
    rows = connection.execute(
        "SELECT seq, store, id, post FROM _atoma_hub_change WHERE scope=? AND seq>? AND seq<=? ORDER BY seq, idx",
        (scope, start, end),
    )
    changes = tuple(
        LoggedChange(seq, store, id, None if post is None else read_image(post))
        for seq, store, id, post in cast("Iterator[tuple[int, str, str, bytes | None]]", rows)
    )
    outcomes = _outcomes(connection, scope, client, outcomes_after, max_bytes)
    return LogPage(epoch, state, start_hash, end, end_hash, changes, outcomes)


def read_lineage(connection: apsw.Connection, place: Place) -> Lineage:
    """The scope of ``place`` beside it."""
    state = read_scope(connection, place.scope)
    epoch = place.cursor.epoch
    if epoch != load_epoch(connection):
        ended = ended_at(connection, place.scope, epoch)
    else:  # a place beyond the head of its own epoch: the hub has lost something, and nobody knows from where on
        ended = state.head if place.cursor.seq <= state.head else None
    found = ((mark.seq, _hash_at(connection, state, mark.seq)) for mark in place.marks if mark.seq)
    hashes = {seq: hash_ for seq, hash_ in found if hash_ is not None}
    return Lineage(state, ended, hashes, *load_word(connection, epoch))


def _hash_at(connection: apsw.Connection, state: ScopeState, seq: int) -> bytes | None:
    """Lineage hash at ``seq``, None when the log does not reach there."""
    if seq == state.head:
        return state.head_hash
    if seq < state.floor or seq > state.head:
        return None
    if seq == state.floor:
        found: object = connection.execute("SELECT floor_hash FROM _atoma_hub_scope WHERE scope=?", (state.scope,)).get
    else:
        found = connection.execute("SELECT hash FROM _atoma_hub_tx WHERE scope=? AND seq=?", (state.scope, seq)).get
    return found if isinstance(found, bytes) else None


def _end_of_page(
    connection: apsw.Connection, scope: str, start: int, start_hash: bytes, max_bytes: int, max_changes: int
) -> tuple[int, bytes]:
    end, end_hash = start, start_hash
    size = changes = 0
    rows = connection.execute(
        "SELECT seq, hash, n, bytes FROM _atoma_hub_tx WHERE scope=? AND seq>? ORDER BY seq LIMIT ?",
        (scope, start, max_changes),
    )
    for seq, hash_, count, length in cast("Iterator[tuple[int, bytes, int, int]]", rows):
        size += length
        changes += count
        if end != start and (size > max_bytes or changes > max_changes):
            break
        end, end_hash = seq, hash_
    return end, end_hash


def _outcomes(
    connection: apsw.Connection, scope: str, client: tuple[bytes, str], after: int, max_bytes: int
) -> tuple[Outcome, ...]:
    # a mutation that could not be read has no scope: its outcome is in every scope's page
    found: list[Outcome] = []
    size = 0
    rows = connection.execute(_OUTCOMES, (*client, after, scope, OUTCOMES_MAX))
    for mid, status, where, seq, detail in cast("Iterator[tuple[int, str, str, int, bytes | None]]", rows):
        size += len(detail or b"")
        if found and size > max_bytes:
            break
        found.append(read_outcome(mid, status, where, seq, detail))
    return tuple(found)


def read_scan(
    connection: apsw.Connection,
    statements: Mapping[str, StoreStatements],
    scope: str,
    after: RowKey | None,
    *,
    max_bytes: int,
    max_rows: int,
) -> ScanPage:
    """Rows of ``scope`` behind ``after``, in (store, id) order."""
    epoch = load_epoch(connection)
    state = read_scope(connection, scope)
    found: list[tuple[str, str, int, RowImage]] = []
    size = 0
    for name in sorted(statements):
        if after is not None and name < after[0]:
            continue
        behind = after[1] if after is not None and name == after[0] else ""
        store = statements[name]
        rows = connection.execute(store.scan, (scope, behind, max_rows - len(found) + 1))
        for id, seq, *values in cast("Iterator[tuple[str, int, *tuple[Scalar, ...]]]", rows):
            if found and (size >= max_bytes or len(found) >= max_rows):
                return ScanPage(epoch, state, tuple(found), (found[-1][0], found[-1][1]))
            found.append((name, id, seq, store.image(values)))
            size += len(id) + _size(values)
    return ScanPage(epoch, state, tuple(found), None)


def _size(values: Sequence[Scalar]) -> int:
    return sum(len(value) if isinstance(value, (str, bytes)) else 9 for value in values)


def read_unfinished(connection: apsw.Connection) -> list[str]:
    """Scopes whose log goes beyond their head; one look into the log for each scope."""
    rows = connection.execute(_UNFINISHED).fetchall()
    return [cast("str", scope) for (scope,) in rows]


def read_located(connection: apsw.Connection, store: StoreSpec[object], ids: Sequence[str]) -> dict[str, list[str]]:
    """Scopes that hold a row with each id; rows are clustered by scope, so every scope is looked into."""
    sql = (
        f"SELECT s.scope FROM _atoma_hub_scope s CROSS JOIN {quote(store.name)} t ON t._scope=s.scope AND t.id=? "
        "ORDER BY s.scope"
    )
    return {id: [cast("str", row[0]) for row in connection.execute(sql, (id,))] for id in ids}


def read_query(
    connection: apsw.Connection,
    schema: Schema,
    query: BoundQuery,
    scopes: Sequence[str] | None,
    *,
    max_bytes: int,
    max_rows: int,
) -> QueryPage:
    """Answer ``query``, which reads one store, from the rows of ``scopes``, of all for None."""
    store = schema.store(query.store)
    ids = ids_of(query)
    if scopes is not None and not scopes:
        return QueryPage(tuples=((0,),)) if is_count(query.plan) else QueryPage()
    if ids is not None:
        rows = _rows_of_ids(connection, store, sorted(set(ids)), scopes)
        return _collect(connection, store, rows, max_bytes, max_rows)
    statement = Compiler(schema.store, scopes).select(query.plan, one_more=True)
    raw = connection.execute(statement.sql, statement.bindings(query.params))
    if statement.whole is None:
        return QueryPage(tuples=tuple(cast("Iterator[tuple[object, ...]]", raw)))
    return _collect(connection, store, raw, max_bytes, max_rows)


def _rows_of_ids(
    connection: apsw.Connection, store: StoreSpec[object], ids: Sequence[str], scopes: Sequence[str] | None
) -> Iterator[tuple[Scalar, ...]]:
    sql = f"SELECT {row_columns(store)} FROM {quote(store.name)} WHERE _scope=? AND id=?"
    allowed = None if scopes is None else frozenset(scopes)
    held = read_located(connection, store, ids) if allowed is None or len(allowed) > 1 else {}
    for id in ids:
        for scope in held.get(id, ()) if allowed is None or len(allowed) > 1 else allowed:
            if allowed is None or scope in allowed:
                yield from cast("Iterator[tuple[Scalar, ...]]", connection.execute(sql, (scope, id)))


def _collect(
    connection: apsw.Connection,
    store: StoreSpec[object],
    rows: Iterator[tuple[Scalar, ...]] | apsw.Cursor,
    max_bytes: int,
    max_rows: int,
) -> QueryPage:
    found: list[StoredRow] = []
    versions: dict[str, Versions] = {}
    size = 0
    for row in rows:
        id, _, seq, scope, *values = cast("tuple[str, int, int, str, *tuple[Scalar, ...]]", row)
        size += len(id) + _size(values)
        if len(found) >= max_rows or (found and size > max_bytes):
            return QueryPage(tuple(found), complete=False)
        if scope not in versions:
            versions[scope] = read_versions(connection, scope)
        version = versions[scope].told(seq)
        found.append(StoredRow(id, version, version, scope, dict(zip(store.value_columns, values, strict=True))))
    return QueryPage(tuple(found))
