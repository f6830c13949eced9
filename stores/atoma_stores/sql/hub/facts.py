"""The first batch of a write group: everything that its decisions have to know, asked for as lists, not row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar, cast

import msgspec

from atoma.contracts.boots import BootedPlace
from atoma.contracts.mutations import Origin, Recovers
from atoma.ports.hub import ClientState, Need, ScopeState, StoredOutcome, Trace
from atoma.ports.hub_rows import DIRECT, ForeignChange, RowFact, TheirChange
from atoma_stores.sql.dialect import Dialect, Lookup
from atoma_stores.sql.hub import tables
from atoma_stores.sql.hub.clients import ClientCount, ForgettableClient, crowded_from
from atoma_stores.sql.hub.epochs import ENDED, ENDS, read_ended, read_ends
from atoma_stores.sql.hub.rows import StoreSql, gravestone, other_seq, read_outcome
from atoma_stores.sql.hub.state import LogPosition, RowAddress, SeenVersion, State, keys_of
from atoma_stores.sql.scripts import Execute, Row, Script
from atoma_stores.sql.tables import SqlColumns

FactRows: TypeAlias = Sequence[Row]
TakeRows: TypeAlias = Callable[[FactRows], None]
_Lookups: TypeAlias = Callable[[SqlColumns, str], Lookup]
_N = TypeVar("_N")

DECISIONS_MAX = 200
"""Decisions of a group, if it is not one run alone."""

_CLIENT: SqlColumns = {"client": "BLOB", "stone": "BLOB", "principal": "TEXT"}
_PLACE: SqlColumns = {"scope": "TEXT", "epoch": "BLOB", "seq": "INTEGER"}
_SEEN: SqlColumns = {
    "scope": "TEXT",
    "store": "TEXT",
    "id": "TEXT",
    "seq": "INTEGER",
    "epoch": "BLOB",
    "author": "BLOB",
}
_MIDS: SqlColumns = {"client": "BLOB", "first": "INTEGER", "last": "INTEGER"}
_NAME: SqlColumns = {"client": "BLOB", "mid": "INTEGER", "digest": "BLOB", "principal": "TEXT"}
_FIRST: SqlColumns = {"client": "BLOB", "mid": "INTEGER", "principal": "TEXT", "stone": "BLOB"}
_OFFER: SqlColumns = {"scope": "TEXT", "epoch": "BLOB", "store": "TEXT", "id": "TEXT"}
_UNIT: SqlColumns = {"principal": "TEXT", "first": "TEXT", "behind": "TEXT"}

SINCE = """CASE WHEN k.epoch=(SELECT i.epoch FROM {info} i) THEN k.seq
    WHEN length(k.epoch)=0 THEN {least}(k.seq, coalesce((SELECT min(coalesce(d.head, 0)) FROM {epoch} e
        LEFT JOIN {epoch_end} d ON d.epoch=e.number AND d.scope=k.scope), k.seq))
    ELSE {least}(k.seq, coalesce((SELECT d.head FROM {epoch} e JOIN {epoch_end} d ON d.epoch=e.number
        WHERE e.epoch=k.epoch AND d.scope=k.scope), 0)) END"""
"""How much of a scope's history now somebody knows who had seen a sequence of an epoch; see ``Facts.since``."""
_OTHER_SEQ = other_seq(row="t", scope="t.scope", store="t.store", columns=("other_seq", "seq", "author"))
"""That of a tombstone."""
_VERDICT = "o.mid, o.status, o.scope, o.seq, o.detail, o.digest"


class FactQueries:
    """The queries, for one dialect and schema.

    Attributes:
        dialect: The dialect.
        stores: SQL of the stores.
    """

    def __init__(self, dialect: Dialect, stores: Mapping[str, StoreSql]) -> None:
        self.dialect, self.stores = dialect, stores
        self._about_scopes_and_clients(dialect.lookup)
        self._about_rows(dialect.lookup)
        self._about_verdicts(dialect.lookup)
        self._about_offers(dialect.lookup)

    def _about_scopes_and_clients(self, lookup: _Lookups) -> None:
        render = self.dialect.render
        self.info = render("SELECT i.epoch, i.commits, i.boot FROM {info} i")
        self.scopes = lookup(
            {"scope": "TEXT"},
            "SELECT s.scope, s.head, s.head_hash, s.floor, s.boots FROM {keys} {join} {scope} s ON s.scope=k.scope",
        )
        self.counters = lookup(
            {"scope": "TEXT"},
            "SELECT c.scope, c.name, c.value FROM {keys} {join} {counter} c ON c.scope=k.scope",
        )
        self.clients = lookup(
            _CLIENT,
            "SELECT k.client, k.principal, c.number, c.incarnation, c.principal, c.last_mid, c.last_digest, c.confirmed_mid, "
            "c.seen_ms, x.client, coalesce(n.n, 0), CASE WHEN c.number IS NULL THEN {fresh_number} END, CASE WHEN c.number "
            "IS NULL THEN (SELECT count(*) FROM {client} o WHERE o.principal=k.principal) END FROM {keys} "
            "LEFT JOIN {client} c ON c.client_id=k.client LEFT JOIN {expired} x ON x.client=k.stone "
            "LEFT JOIN {expired_count} n ON n.principal=k.principal",
        )
        # whoever may have to leave for a client that is not known yet
        self.crowds = lookup(
            _CLIENT,
            "SELECT c.principal, c.number, c.client_id, a.digest FROM {client} c LEFT JOIN {alias} a ON a.client=c.number "
            "WHERE c.principal IN (SELECT k.principal FROM {keys} LEFT JOIN {client} o ON o.client_id=k.client "
            "WHERE o.number IS NULL AND (SELECT count(*) FROM {client} p WHERE p.principal=k.principal)>="
            f"{crowded_from(DECISIONS_MAX)}) ORDER BY c.seen_ms, c.number",
        )

    def _about_rows(self, lookup: _Lookups) -> None:
        self.tombstones = lookup(
            tables.TOMBSTONE.of(*tables.TOMBSTONE.key),
            f"SELECT k.n, t.last, t.seq, {_OTHER_SEQ}, c.client_id FROM {{keys}} {{join}} {{tombstone}} t ON t.scope=k.scope "
            "AND t.store=k.store AND t.id=k.id LEFT JOIN {client} c ON c.number=t.author",
        )
        self.foreign = lookup(
            _SEEN,
            "SELECT DISTINCT k.n, c.fields, CASE WHEN c.post IS NULL THEN 1 ELSE 0 END FROM {keys} {join} {change} c "
            f"ON c.scope=k.scope AND c.store=k.store AND c.id=k.id AND c.seq>{SINCE} AND c.author<>coalesce("
            "(SELECT a.number FROM {client} a WHERE a.client_id=k.author), -1)",
        )
        self.theirs = lookup(
            _SEEN,
            "SELECT k.n, c.seq, a.client_id, x.written_ms, c.pre, c.post FROM {keys} {join} {change} c ON c.scope=k.scope "
            f"AND c.store=k.store AND c.id=k.id AND c.seq>{SINCE} {{join}} {{tx}} x ON x.scope=c.scope AND x.seq=c.seq "
            "LEFT JOIN {client} a ON a.number=c.author WHERE a.client_id IS NULL OR a.client_id<>k.author "
            "ORDER BY k.n, c.seq",
        )
        self.since = lookup(_PLACE, f"SELECT k.n, {SINCE} FROM {{keys}}")

    def _about_verdicts(self, lookup: _Lookups) -> None:
        self.outcomes = lookup(
            _MIDS,
            f"SELECT k.n, {_VERDICT} FROM {{keys}} {{join}} {{client}} c ON c.client_id=k.client {{join}} {{outcome}} o "
            "ON o.client=c.number AND o.mid>=k.first AND o.mid<=k.last",
        )
        self.origins = lookup(
            _NAME,
            f"SELECT k.n, {_VERDICT} FROM {{keys}} {{join}} {{client}} c ON c.client_id=k.client AND c.principal=k.principal "
            "{join} {outcome} o ON o.client=c.number AND o.mid=k.mid AND o.digest=k.digest",
        )
        self.aliases = lookup(
            {"digest": "BLOB", "principal": "TEXT"},
            f"SELECT k.n, {_VERDICT} FROM {{keys}} {{join}} {{alias}} a ON a.digest=k.digest {{join}} {{client}} c "
            "ON c.number=a.client AND c.principal=k.principal {join} {outcome} o ON o.client=a.client AND o.mid=a.mid "
            "WHERE EXISTS (SELECT 1 FROM {alias})",
        )
        self.expired = lookup(
            {"stone": "BLOB"},
            "SELECT k.n FROM {keys} {join} {expired} x ON x.client=k.stone WHERE EXISTS (SELECT 1 FROM {expired_count})",
        )
        self.firsts = lookup(
            _FIRST,
            "SELECT k.n, c.last_mid, CASE WHEN o.mid IS NULL THEN 0 ELSE 1 END, x.client FROM {keys} "
            "LEFT JOIN {client} c ON c.client_id=k.client AND c.principal=k.principal "
            "LEFT JOIN {outcome} o ON o.client=c.number AND o.mid=k.mid LEFT JOIN {expired} x ON x.client=k.stone",
        )
        self.answers = lookup(
            {"principal": "TEXT", "idem": "TEXT"},
            "SELECT i.principal, i.idem, i.outcome FROM {keys} {join} {idem} i ON i.principal=k.principal AND i.idem=k.idem",
        )
        self.units = lookup(
            _UNIT,
            "SELECT i.principal, i.idem, i.outcome FROM {keys} {join} {idem} i ON i.principal=k.principal "
            "AND i.idem>k.first AND i.idem<k.behind",
        )
        self.forgotten = self.dialect.render("SELECT f.before_ms FROM {forgotten} f")
        self.spent = lookup({"key": "BLOB"}, "SELECT s.key FROM {keys} {join} {spent} s ON s.key=k.key")

    def _about_offers(self, lookup: _Lookups) -> None:
        render = self.dialect.render
        traced = "SELECT r.scope, r.epoch, r.store, r.id, r.position, r.seq, r.survivor, r.refused FROM "
        of_row = "r.scope=k.scope AND r.epoch=k.epoch AND r.store=k.store AND r.id=k.id"
        before = "r.scope={p1} AND r.epoch={p2} AND r.position<{p3}"
        self.traces = lookup(_OFFER, f"{traced}{{keys}} {{join}} {{trace}} r ON {of_row}")
        # of every epoch: nobody knows in which of them a row was seen before it was offered, and a restored hub does not even know
        # the epochs that had begun behind its backup
        self.brought = lookup(
            {"scope": "TEXT", "store": "TEXT", "id": "TEXT"},
            "SELECT r.scope, r.store, r.id, r.seq FROM {keys} {join} {trace} r ON r.scope=k.scope AND r.store=k.store "
            "AND r.id=k.id",
        )
        self.traces_before = render(f"{traced}{{trace}} r WHERE {before}")
        self.reached = lookup(
            {"scope": "TEXT", "epoch": "BLOB"},
            "SELECT r.scope, r.epoch, r.position, r.seen, r.boots FROM {keys} {join} {recovered} r ON r.scope=k.scope "
            "AND r.epoch=k.epoch",
        )
        self.ended = render(ENDED)
        self.ends = lookup({"scope": "TEXT"}, ENDS)
        behind = "c.scope={p1} AND c.seq>coalesce((SELECT s.head FROM {scope} s WHERE s.scope=c.scope), 0)"
        self.leftover = render(
            f"SELECT c.store, c.id, c.pre FROM {{change}} c WHERE {behind} ORDER BY c.seq DESC, c.idx DESC"
        )
        self.buried_behind = render(
            f"SELECT t.store, t.id, t.last, t.seq, {_OTHER_SEQ}, a.client_id FROM {{change}} c {{join}} {{tombstone}} t "
            f"ON t.scope=c.scope AND t.store=c.store AND t.id=c.id LEFT JOIN {{client}} a ON a.number=t.author WHERE {behind}"
        )


def load(queries: FactQueries, needs: Sequence[Need]) -> Script[State]:
    """One batch: the state that every one of ``needs`` finds its facts in."""
    questions = _Questions(queries)
    questions.ask(needs)
    results = yield [*questions.locks, *questions.batch]
    return questions.read(results[len(questions.locks) :])


def look(queries: FactQueries, state: State, need: Need) -> Script[None]:
    """Another batch, under the same locks: the rows that ``need`` has, into ``state``."""
    questions = _Questions(queries)
    questions.ask_rows([need])
    state.look(questions.read((yield questions.batch)))


class _Questions:
    """The batch as it is put together, and what becomes of its results."""

    def __init__(self, queries: FactQueries) -> None:
        self._queries = queries
        self._state = State()
        self._reads: list[TakeRows] = []
        self.locks: Sequence[Execute] = ()
        self.batch: list[Execute] = []

    def read(self, results: Sequence[FactRows]) -> State:
        """The state from the results of the batch."""
        for read, rows in zip(self._reads, results, strict=True):
            read(rows)
        return self._state

    def ask(self, needs: Sequence[Need]) -> None:
        """Ask for everything that is needed."""
        queries = self._queries
        scopes = dict.fromkeys(need.scope for need in needs if need.scope)
        clients = dict.fromkeys((need.client_id, need.principal) for need in needs if need.client_id)
        lock = queries.dialect.lock
        # everybody locks in one order, scopes first
        self.locks = [
            *lock(tables.SCOPE, "scope", sorted(scopes)),
            *lock(tables.CLIENT, "client_id", sorted({client_id for client_id, _ in clients})),
        ]
        self._put(Execute(queries.info), self._read_info)
        if scopes:
            self._put(queries.scopes.of([(scope,) for scope in scopes]), self._read_scopes)
        counted = dict.fromkeys(need.scope for need in needs if need.counters and need.scope)
        if counted:
            self._put(queries.counters.of([(scope,) for scope in counted]), self._read_counters)
        if clients:
            self._ask_clients(needs, list(clients))
        self.ask_rows(needs)
        self._ask_names(needs)
        self._ask_answers(needs)
        self._ask_offers(needs)

    def _put(self, query: Execute, read: TakeRows) -> None:
        self.batch.append(query)
        self._reads.append(read)

    def _read_info(self, rows: FactRows) -> None:
        self._state.epoch, self._state.commits, boot = cast("tuple[bytes, int, bytes | None]", rows[0])
        self._state.boot = boot or b""

    def _read_scopes(self, rows: FactRows) -> None:
        for scope, head, head_hash, floor, boots in cast("Sequence[tuple[str, int, bytes, int, bytes | None]]", rows):
            self._state.scopes[scope] = ScopeState(scope, head, head_hash, floor, boots or b"")
            self._state.stored[scope] = True

    def _read_counters(self, rows: FactRows) -> None:
        found: dict[str, dict[str, int]] = {}
        for scope, name, value in cast("Sequence[tuple[str, str, int]]", rows):
            found.setdefault(scope, {})[name] = value
        self._state.counters.update(found)

    # clients

    def _ask_clients(self, needs: Sequence[Need], clients: Sequence[tuple[bytes, str]]) -> None:
        keys = {client: (client[0], gravestone(client[0]), client[1]) for client in clients}
        self._put(self._queries.clients.of(list(keys.values())), self._read_clients)
        pushing = dict.fromkeys(
            (need.client_id, need.principal) for need in needs if need.client_id and need.mids and not need.opening
        )
        if pushing:
            self._put(self._queries.crowds.of([keys[client] for client in pushing]), self._read_crowds)

    def _read_clients(self, rows: FactRows) -> None:
        state = self._state
        for client_id, asking, number, *rest in rows:
            known, (stone, forgotten, fresh, count) = rest[:6], rest[6:]
            assert isinstance(client_id, bytes)
            if number is not None:
                state.clients[client_id] = ClientState(client_id, *cast("tuple[int, str, int, bytes, int, int]", known))
                state.numbers[client_id] = cast("int", number)
                state.stored[client_id] = True
            else:
                state.fresh.setdefault(client_id, cast("int", fresh))
            if stone is not None:
                state.expired[client_id] = True
            principal, before = cast("str", asking), state.rooms.get(cast("str", asking), ClientCount())
            state.rooms[principal] = ClientCount(
                max(before.known, cast("int | None", count) or 0), cast("int", forgotten)
            )

    def _read_crowds(self, rows: FactRows) -> None:
        crowds: dict[str, dict[int, ForgettableClient]] = {}
        for principal, number, client_id, name in cast("Sequence[tuple[str, int, bytes, bytes | None]]", rows):
            crowd = crowds.setdefault(principal, {})
            names = crowd[number].names if number in crowd else ()
            crowd[number] = ForgettableClient(number, client_id, names if name is None else (*names, name))
        for principal, known in crowds.items():
            self._state.rooms[principal] = replace(self._state.rooms[principal], crowd=tuple(known.values()))

    # rows

    def ask_rows(self, needs: Sequence[Need]) -> None:
        """Ask for rows, and what became of them since somebody saw them."""
        queries = self._queries
        by_store: dict[str, dict[tuple[str, str], None]] = {}
        seen: dict[SeenVersion, None] = {}
        places: dict[LogPosition, None] = {}
        for need in needs:
            if need.since:
                places[need.scope, need.epoch, need.since] = None
            for store, id in need.rows:
                by_store.setdefault(store, {})[need.scope, id] = None
                if need.author != DIRECT:
                    seen[need.scope, store, id, need.since, need.epoch, need.author] = None
        for store, keys in by_store.items():
            self._put(queries.stores[store].get.of(list(keys)), self._rows_of(store, list(keys)))
        addresses = [(scope, store, id) for store, keys in by_store.items() for scope, id in keys]
        if addresses:
            self._put(queries.tombstones.of(addresses), self._tombstones_of(addresses))
        if seen:
            self._put(queries.foreign.of(list(seen)), self._foreign_of(list(seen)))
        looked = [one for one in seen if queries.stores[one[1]].looks_back]
        if looked:
            self._put(queries.theirs.of(looked), self._theirs_of(looked))
        if places:
            self._put(queries.since.of(list(places)), self._since_of(list(places)))

    def _rows_of(self, store: str, keys: Sequence[tuple[str, str]]) -> TakeRows:
        def read(rows: FactRows) -> None:
            for at, row in _numbered(rows):
                scope, id = keys[at]
                self._read_row((scope, store, id), row)

        return read

    def _read_row(self, address: RowAddress, row: Row) -> None:
        seq, other, author = cast("tuple[int, int, bytes | None]", row[-3:])
        image = self._queries.stores[address[1]].image(row[:-3])
        self._state.rows[address] = RowFact(image, seq, author or DIRECT, other_seq=other)

    def _tombstones_of(self, addresses: Sequence[RowAddress]) -> TakeRows:
        def read(rows: FactRows) -> None:
            for at, row in _numbered(rows):
                self._read_tombstone(addresses[at], row)

        return read

    def _read_tombstone(self, address: RowAddress, row: Row) -> None:
        last, seq, other, author = cast("tuple[bytes, int, int, bytes | None]", row)
        if address not in self._state.rows:
            self._state.rows[address] = RowFact(
                None, seq, author or DIRECT, self._queries.stores[address[1]].unpack(last), (), other
            )

    def _foreign_of(self, seen: Sequence[SeenVersion]) -> TakeRows:
        def read(rows: FactRows) -> None:
            for at, (fields, gone) in _numbered(rows):
                self._state.foreign.setdefault(seen[at], []).append(_foreign(cast("str | None", fields), bool(gone)))

        return read

    def _theirs_of(self, seen: Sequence[SeenVersion]) -> TakeRows:
        def read(rows: FactRows) -> None:
            for at, row in _numbered(rows):
                seq, author, written_ms, *images = cast(
                    "tuple[int, bytes | None, int, bytes | None, bytes | None]", row
                )
                store = self._queries.stores[seen[at][1]]
                pre, post = (None if image is None else store.unpack(image) for image in images)
                change = TheirChange(seq, author or DIRECT, written_ms, pre, post)
                self._state.theirs.setdefault(seen[at], []).append(change)

        return read

    def _since_of(self, places: Sequence[LogPosition]) -> TakeRows:
        def read(rows: FactRows) -> None:
            for at, (known,) in _numbered(rows):
                self._state.since[places[at]] = cast("int", known)

        return read

    # what mutations are called

    def _ask_names(self, needs: Sequence[Need]) -> None:
        mids: dict[bytes, set[int]] = {}
        origins: dict[tuple[Origin, str], None] = {}
        aliases: dict[tuple[bytes, str], None] = {}
        for need in needs:
            if need.mids:
                mids.setdefault(need.client_id, set()).update(need.mids)
            if need.origin is not None:
                aliases[need.origin.digest, need.principal] = None
                if need.renamed:
                    origins[need.origin, need.principal] = None
        ranges = [(client_id, *ends) for client_id, of_client in mids.items() for ends in _ranges(of_client)]
        if ranges:
            clients = [client_id for client_id, _, _ in ranges]
            self._put(self._queries.outcomes.of(ranges), self._outcomes_of(clients))
        if origins:
            keys = [(name.client_id, name.mid, name.digest, principal) for name, principal in origins]
            self._put(self._queries.origins.of(keys), self._verdicts_of(list(origins), self._state.origins))
            first = [(name.client_id, name.mid, principal, gravestone(name.client_id)) for name, principal in origins]
            self._put(self._queries.firsts.of(first), self._firsts_of(list(origins)))
        if aliases:
            self._put(self._queries.aliases.of(list(aliases)), self._verdicts_of(list(aliases), self._state.aliases))
            names = list(dict.fromkeys(digest for digest, _ in aliases))
            self._put(self._queries.expired.of([(gravestone(name),) for name in names]), self._expired_of(names))

    def _outcomes_of(self, clients: Sequence[bytes]) -> TakeRows:
        def read(rows: FactRows) -> None:
            for at, row in _numbered(rows):
                stored = _verdict(row)
                self._state.outcomes[clients[at], stored.outcome.mid] = stored

        return read

    def _firsts_of(self, names: Sequence[tuple[Origin, str]]) -> TakeRows:
        def read(rows: FactRows) -> None:
            for at, (last_mid, is_another, stone) in _numbered(rows):
                known = None if last_mid is None else (cast("int", last_mid), bool(is_another))
                self._state.firsts[names[at]] = known
                if stone is not None:
                    self._state.expired[names[at][0].client_id] = True

        return read

    def _expired_of(self, names: Sequence[bytes]) -> TakeRows:
        def read(rows: FactRows) -> None:
            self._state.expired.update((names[cast("int", at)], True) for (at,) in rows)

        return read

    def _verdicts_of(self, names: Sequence[_N], found: dict[_N, StoredOutcome]) -> TakeRows:
        def read(rows: FactRows) -> None:
            found.update((names[at], _verdict(row)) for at, row in _numbered(rows))

        return read

    # direct writes

    def _ask_answers(self, needs: Sequence[Need]) -> None:
        queries = self._queries
        answers = dict.fromkeys(need.answer for need in needs if need.answer is not None)
        units = dict.fromkeys(need.unit for need in needs if need.unit is not None)
        stones = dict.fromkeys(gravestone(*key) for need in needs if need.answer is not None for key in keys_of(need))
        if answers:
            self._put(queries.answers.of(list(answers)), self._read_answers)
            self._put(Execute(queries.forgotten), self._read_forgotten)
            self._put(queries.spent.of([(stone,) for stone in stones]), self._read_spent)
        if units:
            keys = [(principal, f"{idem}:", f"{idem};") for principal, idem in units]
            self._put(queries.units.of(keys), self._read_answers)

    def _read_answers(self, rows: FactRows) -> None:
        for principal, idem, answer in cast("Sequence[tuple[str, str, bytes]]", rows):
            self._state.answers[principal, idem] = answer

    def _read_forgotten(self, rows: FactRows) -> None:
        self._state.forgotten_ms = cast("int", rows[0][0]) if rows else 0

    def _read_spent(self, rows: FactRows) -> None:
        self._state.spent.update(cast("bytes", stone) for (stone,) in rows)

    # offers, what is left behind the head, and when epochs ended

    def _ask_offers(self, needs: Sequence[Need]) -> None:
        queries = self._queries
        offers = [(need, need.recovers) for need in needs if need.recovers is not None]
        if offers or any(need.opening for need in needs):
            self._put(Execute(queries.ended), self._read_ended)
        versions = dict.fromkeys((need.scope,) for need in needs if need.versions)
        if versions:
            self._put(queries.ends.of(list(versions)), self._read_ends)
        for scope in dict.fromkeys(need.scope for need in needs if need.leftover):
            self._ask_leftover(scope)
        if offers:
            self._ask_traces(offers)
        brought = dict.fromkeys((need.scope, *key) for need in needs if need.brought for key in need.rows)
        if brought:
            self._put(queries.brought.of(list(brought)), self._read_brought)

    def _ask_leftover(self, scope: str) -> None:
        queries = self._queries
        self._put(Execute(queries.leftover, (scope,)), self._leftover_of(scope))
        for store in queries.stores.values():
            self._put(Execute(store.behind, (scope,)), self._offered_of(scope, store.name))
        self._put(Execute(queries.buried_behind, (scope,)), self._buried_of(scope))

    def _leftover_of(self, scope: str) -> TakeRows:
        def read(rows: FactRows) -> None:
            left = self._state.leftover.setdefault(scope, {})
            for store, id, pre in cast("Sequence[tuple[str, str, bytes | None]]", rows):  # the first change comes last
                if store in self._queries.stores:
                    left[store, id] = None if pre is None else self._queries.stores[store].unpack(pre)

        return read

    def _ask_traces(self, offers: Sequence[tuple[Need, Recovers]]) -> None:
        queries = self._queries
        reached = dict.fromkeys((need.scope, offer.epoch) for need, offer in offers)
        self._put(queries.reached.of(list(reached)), self._read_reached)
        keys = dict.fromkeys((need.scope, offer.epoch, *key) for need, offer in offers for key in need.rows)
        if keys:
            self._put(queries.traces.of(list(keys)), self._read_traces)
        # the rows that the last one of a client may withdraw: whatever came from before its place
        for values in dict.fromkeys((need.scope, offer.epoch, offer.position) for need, offer in offers if offer.last):
            self._put(Execute(queries.traces_before, values), self._read_traces)
            for store in queries.stores.values():
                self._put(Execute(store.offered, values), self._offered_of(values[0], store.name))

    def _read_ended(self, rows: FactRows) -> None:
        self._state.ended = read_ended(rows)

    def _read_ends(self, rows: FactRows) -> None:
        self._state.ends = read_ends(rows)

    def _read_reached(self, rows: FactRows) -> None:
        for scope, epoch, position, seen, boots in cast("Sequence[tuple[str, bytes, int, int, bytes | None]]", rows):
            self._state.reached[scope, epoch] = position
            self._state.furthest[scope, epoch] = BootedPlace(seen, boots or b"")

    def _read_traces(self, rows: FactRows) -> None:
        for scope, epoch, store, id, position, seq, survivor, refused in cast(
            "Sequence[tuple[str, bytes, str, str, int, int, int, int]]", rows
        ):
            if store in self._queries.stores:
                left = self._state.traces.setdefault((scope, epoch), {})
                left[store, id] = Trace(position, seq, bool(survivor), refused)

    def _read_brought(self, rows: FactRows) -> None:
        for scope, store, id, seq in cast("Sequence[tuple[str, str, str, int]]", rows):
            address = (scope, store, id)
            self._state.brought[address] = max(seq, self._state.brought.get(address, 0))

    def _offered_of(self, scope: str, store: str) -> TakeRows:
        def read(rows: FactRows) -> None:
            for row in rows:
                self._read_row((scope, store, cast("str", row[0])), row[1:])

        return read

    def _buried_of(self, scope: str) -> TakeRows:
        def read(rows: FactRows) -> None:
            for row in rows:
                self._read_tombstone((scope, cast("str", row[0]), cast("str", row[1])), row[2:])

        return read


def _numbered(rows: FactRows) -> Iterator[tuple[int, Row]]:
    """Every row behind the position of its key."""
    for row in rows:
        yield cast("int", row[0]), row[1:]


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    """``numbers`` as ranges without gaps, both ends included."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def _verdict(row: Row) -> StoredOutcome:
    mid, status, scope, seq, detail, digest = cast("tuple[int, str, str, int, bytes | None, bytes]", row)
    return StoredOutcome(read_outcome(mid, status, scope, seq, detail), digest)


def _foreign(fields: str | None, deleted: bool) -> ForeignChange:
    return ForeignChange(None if fields is None else msgspec.json.decode(fields, type=tuple[str, ...]), deleted)
