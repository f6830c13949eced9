"""The second batch of a write group: what its decisions come to, table by table, the last state of each row only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from atoma.contracts.values import RowImage
from atoma.ports.hub import LogTransaction, WrittenRow
from atoma.ports.hub_rows import DIRECT
from atoma_stores.sql.dialect import Dialect, Write
from atoma_stores.sql.hub import tables
from atoma_stores.sql.hub.clients import Forgotten
from atoma_stores.sql.hub.rows import StoreSql, detail_of, gravestone
from atoma_stores.sql.hub.state import MadeDecision, RowAddress, State
from atoma_stores.sql.scripts import Batch, Execute, ExecuteMany, Row
from atoma_stores.sql.tables import Table

WriteStatement: TypeAlias = Execute | ExecuteMany


class EffectQueries:
    """The statements, for one dialect and schema."""

    def __init__(self, dialect: Dialect, stores: Mapping[str, StoreSql]) -> None:
        self.stores = stores
        client = ("incarnation", "last_mid", "last_digest", "confirmed_mid", "seen_ms")
        self.new_clients = _insert(dialect, tables.CLIENT)
        self.clients = _update(dialect, tables.CLIENT, ("client_id",), client)
        # a plain insert: where somebody else has made the row meanwhile the group is decided anew, on what is there
        self.new_scopes = _insert(dialect, tables.SCOPE)
        self.scopes = _update(dialect, tables.SCOPE, ("scope",), ("head", "head_hash", "boots"))
        self.transactions = _insert(dialect, tables.TX)
        self.changes = _insert(dialect, tables.CHANGE)
        self.tombstones = _insert(
            dialect,
            tables.TOMBSTONE,
            "(scope, store, id) DO UPDATE SET seq=excluded.seq, author=excluded.author, last=excluded.last, "
            "other_seq=excluded.other_seq",
        )
        self.unburied = _delete(dialect, tables.TOMBSTONE, tables.TOMBSTONE.key)
        self.outcomes = _insert(dialect, tables.OUTCOME)
        self.aliases = _insert(dialect, tables.ALIAS, "(digest) DO NOTHING")
        self.answers = _insert(dialect, tables.IDEM)
        greatest = dialect.words["greatest"]
        self.reached = _insert(
            dialect,
            tables.RECOVERED,
            f"(scope, epoch) DO UPDATE SET position={greatest}(old.position, excluded.position), seen=excluded.seen, "
            "boots=excluded.boots",
        )
        self.traces = _insert(
            dialect,
            tables.TRACE,
            "(scope, epoch, store, id) DO UPDATE SET position=excluded.position, seq=excluded.seq, refused=excluded.refused",
        )
        self.counters = _insert(dialect, tables.COUNTER, "(scope, name) DO UPDATE SET value=excluded.value")
        self.forgets = Forgetting(dialect)
        behind = "DELETE FROM {log} WHERE scope={p1} AND seq>{p2}"
        self.leftovers = [dialect.render(behind, log=dialect.table(log.name)) for log in (tables.TX, tables.CHANGE)]
        counted = [Execute(dialect.render("UPDATE {info} SET commits=commits+1"))]
        self.counted = counted if dialect.counts_commits else []


class Forgetting:
    """The statements that forget clients."""

    def __init__(self, dialect: Dialect) -> None:
        self._outcomes = _delete(dialect, tables.OUTCOME, ("client",))
        self._aliases = _delete(dialect, tables.ALIAS, ("digest",))
        self._clients = _delete(dialect, tables.CLIENT, ("number",))
        self._stones = _insert(dialect, tables.EXPIRED, "(client) DO NOTHING")
        self._counts = _insert(dialect, tables.EXPIRED_COUNT, "(principal) DO UPDATE SET n=excluded.n")

    def of(self, forgets: Sequence[Forgotten], counts: Mapping[str, int]) -> Iterator[WriteStatement]:
        """Forget these clients; ``counts`` is how many have been by then, of each principal."""
        numbers: list[Row] = [(gone.client.number,) for gone in forgets]
        yield from _written(self._outcomes, numbers)
        yield from _written(self._clients, numbers)
        names = [name for gone in forgets for name in gone.client.names]
        yield from self.of_names(names, [name for gone in forgets for name in gone.kept], counts)

    def of_names(
        self, names: Sequence[bytes], kept: Sequence[bytes], counts: Mapping[str, int]
    ) -> Iterator[WriteStatement]:
        """Forget later names of mutations; keep of ``kept``, names and clients, that they were there."""
        yield from _written(self._aliases, [(name,) for name in names])
        yield from _written(self._stones, [(gravestone(name),) for name in kept])
        yield from _written(self._counts, list(counts.items()))


def effects(queries: EffectQueries, state: State, decided: Sequence[MadeDecision]) -> Batch:
    """Everything that ``decided``, the last decisions of ``state``, comes to; empty when it is nothing."""
    batch = [
        *_of_clients(queries, state, decided),
        *_of_log(queries, state, decided),
        *_of_rows(queries, state, decided),
        *_of_verdicts(queries, state, decided),
        *_of_offers(queries, state, decided),
    ]
    return [*batch, *queries.counted] if batch else []


def _of_clients(queries: EffectQueries, state: State, decided: Sequence[MadeDecision]) -> Iterator[WriteStatement]:
    forgets = [gone for decision in decided for gone in decision.forgets]
    if forgets:
        counts = {gone.principal: state.rooms[gone.principal].forgotten for gone in forgets}
        yield from queries.forgets.of(forgets, counts)
    seen = {
        decision.plan.client.client_id: decision.now_ms
        for decision in decided
        if decision.plan.client is not None and decision.plan.client != decision.facts.client
    }
    new: list[Row] = []
    known: list[Row] = []
    for client_id, now_ms in seen.items():
        client = state.clients[client_id]
        where = (client.last_mid, client.last_digest, client.confirmed_mid, now_ms)
        if client_id in state.stored:
            known.append((client_id, client.incarnation, *where))
        else:
            new.append((state.numbers[client_id], client_id, client.incarnation, client.principal, *where))
    yield from _written(queries.new_clients, new)
    yield from _written(queries.clients, known)


def _of_log(queries: EffectQueries, state: State, decided: Sequence[MadeDecision]) -> Iterator[WriteStatement]:
    for decision in decided:
        if decision.need.leftover:
            yield from [Execute(sql, (decision.need.scope, decision.facts.scope.head)) for sql in queries.leftovers]
    scopes = dict.fromkeys(
        decision.plan.transaction.scope for decision in decided if decision.plan.transaction is not None
    )
    moved = [state.scopes[scope] for scope in scopes]
    new: list[Row] = [
        (at.scope, at.head, at.head_hash, 0, b"", at.boots) for at in moved if at.scope not in state.stored
    ]
    yield from _written(queries.new_scopes, new)
    known: list[Row] = [(at.scope, at.head, at.head_hash, at.boots) for at in moved if at.scope in state.stored]
    yield from _written(queries.scopes, known)
    counted = {(decision.need.scope, name): None for decision in decided for name in decision.plan.counters}
    yield from _written(queries.counters, [(scope, name, state.counters[scope][name]) for scope, name in counted])
    transactions: list[Row] = []
    changes: list[Row] = []
    for decision in decided:
        if (tx := decision.plan.transaction) is not None:
            author = _author(state, tx.author)
            head = (tx.scope, tx.seq, tx.hash, author, tx.mid, tx.principal, decision.now_ms)
            transactions.append((*head, len(tx.changes), tx.size, tx.written_ms))
            changes += [_logged(queries, tx, index, change, author) for index, change in enumerate(tx.changes)]
    yield from _written(queries.transactions, transactions)
    yield from _written(queries.changes, changes)


def _logged(queries: EffectQueries, tx: LogTransaction, index: int, change: WrittenRow, author: int) -> Row:
    fields = None if change.fields is None else msgspec.json.encode(change.fields).decode()
    pre = None if change.pre is None else queries.stores[change.store].pack(change.pre)
    return tx.scope, tx.seq, index, change.store, change.id, author, fields, pre, change.body


def _of_rows(queries: EffectQueries, state: State, decided: Sequence[MadeDecision]) -> Iterator[WriteStatement]:
    """Rows as the last decision leaves them, in place of how the first one found them."""
    found: dict[RowAddress, tuple[bool, bool]] = {}  # whether there is a row, and whether a tombstone
    for decision in decided:
        for change in decision.plan.changes:
            before = decision.facts.rows[change.store, change.id]
            found.setdefault(
                (decision.need.scope, change.store, change.id), (before.image is not None, before.last is not None)
            )
    puts: dict[str, list[Row]] = {}
    deletes: dict[str, list[Row]] = {}
    buried: list[Row] = []
    unburied: list[Row] = []
    for address, (is_there, is_buried) in found.items():
        scope, store, id = address
        fact = state.rows[address]
        author = _author(state, fact.author)
        # where a row can be in the way of another, all of them give way before any is put
        if is_there and (fact.image is None or queries.stores[store].unique):
            deletes.setdefault(store, []).append((scope, id))
        if fact.image is not None:
            values = [fact.image[column] for column in queries.stores[store].columns]
            puts.setdefault(store, []).append((*values, author, fact.seq, fact.other_seq, scope, id))
            if is_buried:
                unburied.append((scope, store, id))
        elif fact.last is not None:
            buried.append((scope, store, id, fact.seq, author, queries.stores[store].pack(fact.last), fact.other_seq))
    for store, rows in deletes.items():
        yield from _written(queries.stores[store].delete, rows)
    for store, rows in puts.items():
        yield from _written(queries.stores[store].put, rows)
    yield from _written(queries.tombstones, buried)
    yield from _written(queries.unburied, unburied)


def _of_verdicts(queries: EffectQueries, state: State, decided: Sequence[MadeDecision]) -> Iterator[WriteStatement]:
    outcomes: list[Row] = []
    aliases: list[Row] = []
    answers: list[Row] = []
    for decision in decided:
        need, stored = decision.need, decision.plan.outcome
        if stored is not None:
            outcome, client = stored.outcome, state.numbers[need.client_id]
            verdict = (outcome.mid, outcome.status, outcome.scope, outcome.seq, stored.digest, detail_of(outcome))
            outcomes.append((client, *verdict, decision.now_ms))
            if need.origin is not None and need.renamed:
                aliases.append((need.origin.digest, client, outcome.mid))
        if decision.plan.answer is not None:
            assert need.answer is not None
            answers.append((*need.answer, decision.plan.answer, decision.now_ms))
    yield from _written(queries.outcomes, outcomes)
    yield from _written(queries.aliases, aliases)
    yield from _written(queries.answers, answers)


def _of_offers(queries: EffectQueries, state: State, decided: Sequence[MadeDecision]) -> Iterator[WriteStatement]:
    reached: dict[tuple[str, bytes], None] = {}
    left: dict[tuple[str, bytes, str, str], None] = {}
    for decision in decided:
        if decision.need.recovers is not None:
            offers = state.batch_of(decision.need.scope, decision.need.recovers)
            reached.update({offers: None} if offers in state.furthest else {})
            left.update({(*offers, *key): None for key in (*decision.plan.traces, *decision.plan.refused)})
    places = [(offers, state.furthest[offers]) for offers in reached]
    yield from _written(
        queries.reached, [(*offers, state.reached.get(offers, 0), at.seq, at.boots) for offers, at in places]
    )
    traces: list[Row] = []
    for scope, epoch, store, id in left:
        trace = state.traces[scope, epoch][store, id]
        traces.append((scope, epoch, store, id, trace.position, trace.seq, int(trace.survivor), trace.refused))
    yield from _written(queries.traces, traces)


def _author(state: State, client_id: bytes) -> int:
    """The author's number, 0 for a direct write."""
    return 0 if client_id == DIRECT else state.numbers[client_id]


def may_hide_a_violation(queries: EffectQueries, decided: Iterable[MadeDecision]) -> bool:
    """Whether a decision may have broken a unique index that a later one has made whole again.

    Written one after the other the first one would have been refused; the last state of the rows does not show it. That takes
    a value that one decision has taken and a later one has given up.
    """
    taken: set[tuple[object, ...]] = set()
    for decision in decided:
        given, now = set[tuple[object, ...]](), set[tuple[object, ...]]()
        for change in decision.plan.changes:
            store = queries.stores[change.store]
            if not store.unique:
                continue
            before = set(_values(decision.need.scope, change, store, change.pre))
            after = set(_values(decision.need.scope, change, store, change.post))
            given |= before - after
            now |= after - before
        if not taken.isdisjoint(given):
            return True
        taken |= now
    return False


def _values(scope: str, change: WrittenRow, store: StoreSql, image: RowImage | None) -> Iterator[tuple[object, ...]]:
    if image is not None:
        for index, values in store.unique_values(change.id, image):
            yield scope, change.store, index, values


def _written(write: Write, rows: Sequence[Row]) -> Sequence[WriteStatement]:
    return [write.of(rows)] if rows else ()


def _insert(dialect: Dialect, table: Table, conflict: str = "") -> Write:
    return dialect.insert(dialect.table(table.name), table.of(), conflict)


def _update(dialect: Dialect, table: Table, key: Sequence[str], columns: Sequence[str]) -> Write:
    return dialect.update(dialect.table(table.name), table.of(*key), table.of(*columns))


def _delete(dialect: Dialect, table: Table, key: Sequence[str]) -> Write:
    return dialect.delete(dialect.table(table.name), table.of(*key))
