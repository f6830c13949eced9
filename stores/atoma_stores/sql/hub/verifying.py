"""A hub's database read from beginning to end: whether log, hashes, rows, tombstones and verdicts agree with one another.

Nothing is written and nobody is kept out: everything is read in one snapshot, a few transactions at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias, cast

from atoma.contracts.progress import Progress
from atoma.contracts.values import RowImage
from atoma.ports.hub import WrittenRow
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.hub.rows import StoreSql
from atoma_stores.sql.scripts import Execute, Row, Script

ChainHash: TypeAlias = Callable[[bytes, int, Sequence[WrittenRow]], bytes]
"""The hash of a transaction: of the hash before it, its sequence and its changes."""

AT_ONCE = 200
"""So many transactions are read in one batch."""
PROBLEMS_MAX = 100
"""So many problems are told at most."""

_LOG = (
    "SELECT t.seq, t.hash, t.n, c.store, c.id, c.post, CASE WHEN EXISTS (SELECT 1 FROM {change} x WHERE x.scope=c.scope "
    "AND x.store=c.store AND x.id=c.id AND x.seq>c.seq) THEN 0 ELSE 1 END FROM {tx} t "
    "LEFT JOIN {change} c ON c.scope=t.scope AND c.seq=t.seq "
    "WHERE t.scope={p1} AND t.seq>{p2} AND t.seq<={p3} ORDER BY t.seq, c.idx"
)
_DECIDED = (
    "SELECT t.seq, t.mid, o.status, o.scope, o.seq FROM {tx} t JOIN {outcome} o ON o.client=t.author AND o.mid=t.mid "
    "WHERE t.scope={p1} AND t.seq>{p2} AND t.seq<={p3} AND (o.status='rejected' OR o.scope<>t.scope OR o.seq<>t.seq)"
)
_TWICE = (
    "SELECT t.author, t.mid, count(*) FROM {tx} t WHERE t.author<>0 GROUP BY t.author, t.mid HAVING count(*)>1 "
    f"ORDER BY t.author, t.mid LIMIT {PROBLEMS_MAX}"
)
_AHEAD = (
    "SELECT o.client, o.mid, o.scope, o.seq FROM {outcome} o LEFT JOIN {scope} s ON s.scope=o.scope "
    f"WHERE o.seq>coalesce(s.head, 0) ORDER BY o.client, o.mid LIMIT {PROBLEMS_MAX}"
)
_CLIENTS = (
    "SELECT c.client_id, c.last_mid, c.confirmed_mid, count(o.mid), coalesce(max(o.mid), c.confirmed_mid) FROM {client} c "
    "LEFT JOIN {outcome} o ON o.client=c.number AND o.mid>c.confirmed_mid GROUP BY c.number, c.client_id, c.last_mid, "
    "c.confirmed_mid HAVING count(o.mid)<>c.last_mid-c.confirmed_mid OR coalesce(max(o.mid), c.confirmed_mid)<>c.last_mid "
    f"ORDER BY c.number LIMIT {PROBLEMS_MAX}"
)
_LOST = (
    "SELECT t._scope, t.id, t._seq FROM {table} t JOIN {scope} s ON s.scope=t._scope WHERE t._seq>s.floor AND NOT EXISTS "
    "(SELECT 1 FROM {change} c WHERE c.scope=t._scope AND c.store={p1} AND c.id=t.id AND c.seq=t._seq) "
    f"ORDER BY t._scope, t.id LIMIT {PROBLEMS_MAX}"
)
_NOWHERE = (
    "SELECT t._scope, t.id FROM {table} t LEFT JOIN {scope} s ON s.scope=t._scope WHERE s.scope IS NULL "
    f"ORDER BY t._scope, t.id LIMIT {PROBLEMS_MAX}"
)


@dataclass(slots=True)
class Verification:
    """The result of reading a hub's database through.

    Attributes:
        scopes: How many scopes it has.
        transactions: How many transactions of its log were read.
        changes: How many changes of rows they have.
        converted: How many of these transactions a migration has converted: their hashes are those of what was, and cannot be
            computed again.
        problems: What does not agree; nothing when everything does.
    """

    scopes: int = 0
    transactions: int = 0
    changes: int = 0
    converted: int = 0
    problems: list[str] = field(default_factory=list[str])

    def say(self, problem: str) -> None:
        """Note a problem, unless there are so many already that one more says nothing."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


@dataclass(frozen=True, slots=True)
class _Scope:
    """A scope as its row tells it, and up to where a migration has converted its log."""

    name: str
    head: int
    head_hash: bytes
    floor: int
    floor_hash: bytes
    converted: int


@dataclass(frozen=True, slots=True)
class _Logged:
    """A transaction of the log with its changes, each with whether the log has no later one of its row."""

    seq: int
    hash: bytes
    n: int
    changes: Sequence[tuple[WrittenRow, bool]]


def verify(
    dialect: Dialect, stores: Mapping[str, StoreSql], link: ChainHash, converted: Mapping[str, int], told: Progress
) -> Script[Verification]:
    """Read everything, and compare it.

    Args:
        dialect: The database's.
        stores: The SQL of every store.
        link: Makes the hash of a transaction.
        converted: By scope, up to which sequence a migration has converted the log.
        told: Is told how far it is.
    """
    (rows,) = yield [
        Execute(
            dialect.render("SELECT s.scope, s.head, s.head_hash, s.floor, s.floor_hash FROM {scope} s ORDER BY s.scope")
        )
    ]
    found = Verification(scopes=len(rows))
    scopes = [
        _Scope(*row, converted.get(row[0], 0)) for row in cast("Sequence[tuple[str, int, bytes, int, bytes]]", rows)
    ]
    whole = sum(scope.head - scope.floor for scope in scopes)
    for scope in scopes:
        previous, at = scope.floor_hash, scope.floor
        while at < scope.head:
            until = min(at + AT_ONCE, scope.head)
            previous = yield from _part(dialect, stores, link, scope, (at, until, previous), found)
            at = until
            told(found.transactions, whole)
        if previous != scope.head_hash:
            found.say(f"scope {scope.name!r}: the log ends with another hash than its head {scope.head} has")
    yield from _whole(dialect, stores, found)
    return found


def _part(
    dialect: Dialect,
    stores: Mapping[str, StoreSql],
    link: ChainHash,
    scope: _Scope,
    part: tuple[int, int, bytes],
    found: Verification,
) -> Script[bytes]:
    """Read a part of a scope's log, behind a sequence and its hash; the hash at its end."""
    after, until, previous = part
    bounds = (scope.name, after, until)
    log, decided = yield [Execute(dialect.render(_LOG), bounds), Execute(dialect.render(_DECIDED), bounds)]
    expected, last = after + 1, list[tuple[int, WrittenRow]]()
    for logged in _transactions(log):
        where = f"scope {scope.name!r}, transaction {logged.seq}"
        if logged.seq != expected:
            found.say(f"{where}: transactions {expected} to {logged.seq - 1} are missing before it")
            previous = b""
        if len(logged.changes) != logged.n:
            found.say(f"{where}: it has {len(logged.changes)} of {logged.n} changes")
        found.transactions += 1
        found.changes += len(logged.changes)
        if logged.seq <= scope.converted:
            found.converted += 1
        elif (previous or logged.seq == 1) and link(
            previous, logged.seq, [change for change, _ in logged.changes]
        ) != logged.hash:
            found.say(f"{where}: its hash is not that of what it holds")
        previous, expected = logged.hash, logged.seq + 1
        last += [(logged.seq, change) for change, is_last in logged.changes if is_last]
    if expected <= until:
        found.say(f"scope {scope.name!r}: transactions {expected} to {until} are missing")
        previous = b""
    for seq, mid, status, of, at in cast("Sequence[tuple[int, int, str, str, int]]", decided):
        found.say(
            f"scope {scope.name!r}, transaction {seq}: the verdict on its mutation {mid} is {status}, at {at} of scope {of!r}"
        )
    yield from _rows_of(dialect, stores, scope, last, found)
    return previous


def _transactions(log: Sequence[Row]) -> Iterator[_Logged]:
    rows = cast("Sequence[tuple[int, bytes, int, str | None, str, bytes | None, int]]", log)
    for (seq, hash_, n), parts in groupby(rows, key=lambda row: row[:3]):
        changes = [
            (WrittenRow(store, id, None, None, body, None), bool(last))
            for _, _, _, store, id, body, last in parts
            if store is not None
        ]
        yield _Logged(seq, hash_, n, changes)


def _rows_of(
    dialect: Dialect,
    stores: Mapping[str, StoreSql],
    scope: _Scope,
    last: Sequence[tuple[int, WrittenRow]],
    found: Verification,
) -> Script[None]:
    """Compare rows with the last change of each that the log has."""
    tombstones = dialect.lookup(
        {"scope": "TEXT", "store": "TEXT", "id": "TEXT"},
        "SELECT k.n, d.seq FROM {keys} {join} {tombstone} d ON d.scope=k.scope AND d.store=k.store AND d.id=k.id",
    )
    for name, changes in groupby(sorted(last, key=lambda one: one[1].store), key=lambda one: one[1].store):
        store = stores.get(name)
        if store is None:
            found.say(f"scope {scope.name!r}: the log has changes of the store {name!r}, which is not there")
            continue
        of_store = list(changes)
        keys = [(scope.name, change.id) for _, change in of_store]
        rows, gone = yield [
            store.get.of(keys),
            tombstones.of([(scope.name, name, change.id) for _, change in of_store]),
        ]
        width = 1 + len(store.columns)
        there = {cast("int", row[0]): (row[width], store.image(row[1:width])) for row in rows}
        buried = dict(cast("Sequence[tuple[int, int]]", gone))
        for at, (seq, change) in enumerate(of_store):
            wrong = _disagrees(store, change, seq, there.get(at), buried.get(at), images=seq > scope.converted)
            if wrong:
                found.say(f"scope {scope.name!r}, {name}/{change.id}: {wrong}")


def _disagrees(
    store: StoreSql,
    change: WrittenRow,
    seq: int,
    row: tuple[object, RowImage] | None,
    buried: int | None,
    *,
    images: bool,
) -> str:
    """How a row is not as its last change, at ``seq``, has left it; ``""`` when it is."""
    if change.body is None:
        if row is not None:
            return f"it is there, and transaction {seq} has deleted it"
        return "" if buried == seq else f"transaction {seq} has deleted it, and no tombstone says so"
    if row is None:
        return f"it is missing, and transaction {seq} has written it"
    if buried is not None:
        return f"it is there, and has a tombstone of transaction {buried}"
    at, image = row
    if at != seq:
        return f"it says that transaction {at} has changed it last, the log {seq}"
    if images:
        written = store.unpack(change.body)  # a column that was added since is not in it
        differing = [name for name, value in image.items() if name in written and written[name] != value]
        if differing:
            return f"{', '.join(differing)} is not as transaction {seq} has left it"
    return ""


def _whole(dialect: Dialect, stores: Mapping[str, StoreSql], found: Verification) -> Script[None]:
    """Compare what is not found by going through the log."""
    twice, ahead, clients = yield [Execute(dialect.render(sql)) for sql in (_TWICE, _AHEAD, _CLIENTS)]
    for author, mid, count in cast("Sequence[tuple[int, int, int]]", twice):
        found.say(f"mutation {mid} of client number {author} was decided {count} times")
    for client, mid, scope, seq in cast("Sequence[tuple[int, int, str, int]]", ahead):
        found.say(
            f"mutation {mid} of client number {client} was accepted at {seq} of scope {scope!r}, which is not that far"
        )
    for client_id, last, confirmed, count, top in cast("Sequence[tuple[bytes, int, int, int, int]]", clients):
        found.say(
            f"client {client_id.hex()}: its mutations {confirmed + 1} to {last} are decided, and {count} verdicts up to {top} are kept"
        )
    for name, store in stores.items():
        table = dialect.store(store.name)
        lost, nowhere = yield [
            Execute(dialect.render(_LOST, table=table), (name,)),
            Execute(dialect.render(_NOWHERE, table=table)),
        ]
        for scope, id, seq in cast("Sequence[tuple[str, str, int]]", lost):
            found.say(f"scope {scope!r}, {name}/{id}: transaction {seq} has changed it, and the log does not have that")
        for scope, id in cast("Sequence[tuple[str, str]]", nowhere):
            found.say(f"{name}/{id} is in the scope {scope!r}, which is not there")
