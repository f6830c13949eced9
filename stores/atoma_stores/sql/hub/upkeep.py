"""Forgetting: floors rise first, then what lies below goes, in batches that keep the writer free for others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from atoma.contracts.values import Scalar
from atoma.ports.hub import ClockAhead
from atoma.schema.ids import drawn_ms
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.hub import tables
from atoma_stores.sql.hub.clients import ClientCount, ForgettableClient, Forgotten, buried
from atoma_stores.sql.hub.effects import Forgetting
from atoma_stores.sql.hub.epochs import note_forgotten
from atoma_stores.sql.hub.rows import gravestone
from atoma_stores.sql.scripts import Batch, Execute, Script
from atoma_stores.sql.tables import SqlColumns, Table

ROWS_AT_ONCE = 5_000
CLIENTS_AT_ONCE = 50
SCOPES_AT_ONCE = 500
"""Scopes whose floors rise in one transaction."""
DAY_MS = 86_400_000
QUIET_MS = 3 * DAY_MS
"""After so long without a sign of life it may be the clock that has moved."""
APART_MS = 3_600_000
"""How far the clock of a device may be ahead of the hub's for its keys to look no younger than they are."""

_NEWEST_ANSWER = "SELECT max(i.at_ms) FROM {idem} i"
_NEWEST_CLIENT = "SELECT max(c.seen_ms) FROM {client} c"
_BELOW = {"transactions": tables.TX, "changes": tables.CHANGE, "tombstones": tables.TOMBSTONE}
# a rejection stays: mutations that build on it may lie in an outbox for any time, and have to be rejected with it
_CONFIRMED = """DELETE FROM {outcome} WHERE (client, mid) IN (SELECT o.client, o.mid FROM {client} c JOIN {outcome} o
    ON o.client=c.number AND o.mid<=c.confirmed_mid WHERE o.status<>'rejected' AND o.at_ms<{p1} LIMIT {p2}) RETURNING 1"""
_NAMELESS = """SELECT coalesce(c.principal, ''), coalesce(x.n, 0), a.digest FROM {alias} a
    LEFT JOIN {client} c ON c.number=a.client LEFT JOIN {expired_count} x ON x.principal=coalesce(c.principal, '')
    WHERE NOT EXISTS (SELECT 1 FROM {outcome} o WHERE o.client=a.client AND o.mid=a.mid) LIMIT {p1}"""


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that is forgotten, a part at a time.

    Attributes:
        what: What the report calls it.
        part: A script that forgets some and says how many; none are left once it says 0.
    """

    what: str
    part: Callable[[], Script[int]]


def chores(dialect: Dialect, floors: Mapping[str, int], before_ms: int, clients_ms: int) -> Iterator[Chore]:
    """Everything that is to be forgotten: below the floors, and from before a time, of clients another one."""
    below = {what: _below(dialect, table) for what, table in _BELOW.items()}
    for scope, floor in floors.items():
        for what, sql in below.items():
            yield Chore(what, partial(_delete, sql, (scope, floor, ROWS_AT_ONCE)))
    yield Chore("outcomes", partial(_delete, dialect.render(_CONFIRMED), (before_ms, ROWS_AT_ONCE)))
    yield Chore("aliases", partial(_forget_names, dialect))
    yield Chore("answers", partial(_forget_answers, dialect, before_ms))
    yield Chore("clients", partial(_forget_clients, dialect, clients_ms))


def parts(scopes: Sequence[str]) -> Iterator[Sequence[str]]:
    """``scopes`` in parts, each for one transaction of :func:`raise_floors`."""
    return (scopes[at : at + SCOPES_AT_ONCE] for at in range(0, len(scopes), SCOPES_AT_ONCE))


def raise_floors(dialect: Dialect, keep: int, before_ms: int, scopes: Sequence[str]) -> Script[dict[str, int]]:
    """Let the log of each of ``scopes`` begin ``keep`` transactions before its head; the floors, by scope.

    What came behind the end of an epoch that ended since ``before_ms`` stays: devices still offer what that epoch had, and
    have to be told apart from what was written since.
    """
    keys: SqlColumns = {"scope": "TEXT", "keep": "INTEGER", "before": "INTEGER"}
    ends = (  # of a scope that the file did not have then, everything is behind the end
        "SELECT min(coalesce(d.head, 0)) FROM {epoch} e LEFT JOIN {epoch_end} d ON d.epoch=e.number AND d.scope=s.scope "
        "WHERE e.ended_ms>=k.before"
    )
    wanted = (
        f"WITH wanted AS (SELECT s.scope, s.floor, {{least}}(s.head-k.keep, coalesce(({ends}), s.head)) AS until FROM {{keys}} "
        "{join} {scope} s ON s.scope=k.scope) "
        "SELECT w.scope, w.until, t.hash FROM wanted w JOIN {tx} t ON t.scope=w.scope AND t.seq=w.until WHERE w.until>w.floor"
    )
    present = "SELECT s.scope, s.floor FROM {keys} {join} {scope} s ON s.scope=k.scope WHERE s.floor>0"
    locks = dialect.lock(tables.SCOPE, "scope", sorted(scopes))
    results = yield [
        *locks,
        dialect.lookup(keys, wanted).of([(scope, keep, before_ms) for scope in scopes]),
        dialect.lookup({"scope": "TEXT"}, present).of([(scope,) for scope in scopes]),
    ]
    rising, floors = results[len(locks) :]
    if rising:
        update = dialect.update(
            dialect.table("scope"), tables.SCOPE.of("scope"), tables.SCOPE.of("floor", "floor_hash")
        )
        yield [update.of(rising)]
    found = dict(cast("Sequence[tuple[str, int]]", floors))
    return {**found, **{scope: floor for scope, floor, _ in cast("Sequence[tuple[str, int, bytes]]", rising)}}


def check_clock(dialect: Dialect, now_ms: int, answers_ms: int, clients_ms: int) -> Script[None]:
    """Refuse to forget all answers, or all clients, when nobody was here for days: the clock may be far ahead.

    Raises:
        ClockAhead: It may.
    """
    newest = yield [Execute(dialect.render(_NEWEST_ANSWER)), Execute(dialect.render(_NEWEST_CLIENT))]
    answer, client = (cast("int | None", rows[0][0]) or 0 for rows in newest)
    quiet_ms = now_ms - max(answer, client)
    if quiet_ms <= QUIET_MS:
        return
    for what, last_ms, before_ms in (("answer", answer, answers_ms), ("client", client, clients_ms)):
        if 0 < last_ms < before_ms:
            raise ClockAhead(
                f"every {what} would be forgotten, and nobody was here for {quiet_ms / DAY_MS:.0f} days by this machine's "
                "clock; nothing was forgotten. Look at the clock: if it is right, compact(force=True)"
            )


def raise_forgotten(dialect: Dialect, before_ms: int) -> Script[None]:
    """Note up to when answers are about to go, if there are any: what is unknown and that old may be one.

    What is newer than the newest of them was not among them, whatever the clock says now.
    """
    (rows,) = yield [Execute(dialect.render(_NEWEST_ANSWER + " WHERE i.at_ms<{p1}"), (before_ms,))]
    newest = cast("int | None", rows[0][0])
    if newest is not None:
        yield [note_forgotten(dialect, min(before_ms, newest + APART_MS))]


def _below(dialect: Dialect, table: Table) -> str:
    """Delete some rows of a scope up to a sequence."""
    key, some = ", ".join(table.key), ", ".join(f"t.{column}" for column in table.key)
    template = (
        f"DELETE FROM {{table}} WHERE ({key}) IN "
        f"(SELECT {some} FROM {{table}} t WHERE t.scope={{p1}} AND t.seq<={{p2}} LIMIT {{p3}}) RETURNING 1"
    )
    return dialect.render(template, table=dialect.table(table.name))


def _delete(sql: str, values: Sequence[Scalar]) -> Script[int]:
    (rows,) = yield [Execute(sql, values)]
    return len(rows)


def _forget_answers(dialect: Dialect, before_ms: int) -> Script[int]:
    """Forget some answers that were given before ``before_ms``; how many.

    Of a key that does not tell its age it stays that it was used: nothing else would tell a late copy of its write from a
    new one.
    """
    some = "SELECT i.principal, i.idem FROM {idem} i WHERE i.at_ms<{p1} LIMIT {p2}"
    (rows,) = yield [Execute(dialect.render(some), (before_ms, ROWS_AT_ONCE))]
    found = cast("Sequence[tuple[str, str]]", rows)
    if found:
        spent = dialect.insert(dialect.table("spent"), tables.SPENT.of(), "(key) DO NOTHING")
        delete = dialect.delete(dialect.table("idem"), tables.IDEM.of("principal", "idem"))
        ageless = [(gravestone(*key),) for key in found if drawn_ms(key[1]) is None]
        batch: Batch = [*([spent.of(ageless)] if ageless else ()), delete.of(found)]
        yield batch
    return len(found)


def _forget_names(dialect: Dialect) -> Script[int]:
    """Forget some later names of mutations whose outcomes are forgotten, but that there was one; how many."""
    (rows,) = yield [Execute(dialect.render(_NAMELESS), (ROWS_AT_ONCE,))]
    found = cast("Sequence[tuple[str, int, bytes]]", rows)
    counts: dict[str, int] = {}
    kept: list[bytes] = []
    for principal, count, name in found:
        counts[principal], keeping = buried(counts.get(principal, count), [name])
        kept += keeping
    if found:
        yield list(Forgetting(dialect).of_names([name for _, _, name in found], kept, counts))
    return len(found)


def _forget_clients(dialect: Dialect, before_ms: int) -> Script[int]:
    """Forget some clients without a sign of life since ``before_ms``, but that they were there; how many."""
    some = (
        "SELECT c.principal, coalesce(x.n, 0), c.number, c.client_id FROM {client} c "
        "LEFT JOIN {expired_count} x ON x.principal=c.principal WHERE c.seen_ms<{p1} LIMIT {p2} {leaving}"
    )
    (rows,) = yield [Execute(dialect.render(some), (before_ms, CLIENTS_AT_ONCE))]
    found = cast("Sequence[tuple[str, int, int, bytes]]", rows)
    if not found:
        return 0
    later = "SELECT a.client, a.digest FROM {keys} {join} {alias} a ON a.client=k.client"
    (aliases,) = yield [dialect.lookup({"client": "INTEGER"}, later).of([(number,) for _, _, number, _ in found])]
    names: dict[int, tuple[bytes, ...]] = {}
    for number, name in cast("Sequence[tuple[int, bytes]]", aliases):
        names[number] = (*names.get(number, ()), name)
    rooms: dict[str, ClientCount] = {}
    gone: list[Forgotten] = []
    for principal, count, number, client_id in found:
        room = rooms.get(principal) or ClientCount(forgotten=count)
        rooms[principal], forgotten = room.without(
            principal, [ForgettableClient(number, client_id, names.get(number, ()))]
        )
        gone += forgotten
    counts = {principal: room.forgotten for principal, room in rooms.items()}
    yield list(Forgetting(dialect).of(gone, counts))
    return len(gone)
