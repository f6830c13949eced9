"""Carrying out decisions: load the facts, ask the step, write its plan, in one transaction."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import apsw
import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import item_key
from atoma.contracts.mutations import Origin, Recovers
from atoma.contracts.sync import Conflict, Outcome, OutcomeStatus
from atoma.contracts.values import ErrorInfo, RowImage, Scalar, as_image
from atoma.contracts.versions import PLAIN
from atoma.ports.hub import (
    DIRECT,
    ClientState,
    Facts,
    ForeignChange,
    LogTransaction,
    Need,
    Plan,
    RowChange,
    RowFact,
    RowKey,
    ScopeState,
    Step,
    StoredOutcome,
    Trace,
)
from atoma_stores.sqlite.codes import is_unique_violation
from atoma_stores.sqlite.hub_clients import (
    forgets_without_a_trace,
    has_forgotten,
    is_forgotten,
    make_room,
    may_have_been_decided,
)
from atoma_stores.sqlite.hub_epochs import known_until, load_renewal, load_word, read_versions
from atoma_stores.sqlite.hub_tables import StoreStatements, gravestone, read_forgotten

_FOREIGN = """SELECT DISTINCT fields, post IS NULL FROM _atoma_hub_change
    WHERE scope=? AND store=? AND id=? AND seq>? AND author<>?"""
_OTHER = """SELECT max(seq) FROM _atoma_hub_change WHERE scope=? AND store=? AND id=? AND author<>?"""
_TOMBSTONE = """SELECT t.last, t.seq, t.other_seq, t.author, c.client_id FROM _atoma_hub_tombstone t
    LEFT JOIN _atoma_hub_client c ON c.number=t.author WHERE t.scope=? AND t.store=? AND t.id=?"""
_PUT_CLIENT = """INSERT INTO _atoma_hub_client(client_id, incarnation, principal, last_mid, last_digest, confirmed_mid, seen_ms)
    VALUES(?,?,?,?,?,?,?) ON CONFLICT(client_id) DO UPDATE SET incarnation=excluded.incarnation,
    last_mid=excluded.last_mid, last_digest=excluded.last_digest, confirmed_mid=excluded.confirmed_mid,
    seen_ms=excluded.seen_ms RETURNING number"""
_PUT_SCOPE = """INSERT INTO _atoma_hub_scope(scope, head, head_hash, floor, floor_hash) VALUES(?,?,?,0,x'')
    ON CONFLICT(scope) DO UPDATE SET head=excluded.head, head_hash=excluded.head_hash"""
_PUT_TX = """INSERT INTO _atoma_hub_tx(scope, seq, hash, author, mid, principal, committed_ms, n, bytes)
    VALUES(?,?,?,?,?,?,?,?,?)"""
_PUT_CHANGE = """INSERT INTO _atoma_hub_change(scope, seq, idx, store, id, author, fields, pre, post)
    VALUES(?,?,?,?,?,?,?,?,?)"""
_PUT_TOMBSTONE = """INSERT OR REPLACE INTO _atoma_hub_tombstone(scope, store, id, seq, other_seq, author, last)
    VALUES(?,?,?,?,?,?,?)"""
_LEFTOVER = "SELECT store, id, pre FROM _atoma_hub_change WHERE scope=? AND seq>? ORDER BY seq, idx"
_GET_OUTCOME = "SELECT status, scope, seq, detail, digest FROM _atoma_hub_outcome WHERE client=? AND mid=?"
_PUT_OUTCOME = """INSERT INTO _atoma_hub_outcome(client, mid, status, scope, seq, digest, detail, at_ms)
    VALUES(?,?,?,?,?,?,?,?)"""
_VERDICT = "o.mid, o.status, o.scope, o.seq, o.detail, o.digest FROM _atoma_hub_outcome o"
_BY_ORIGIN = f"""SELECT {_VERDICT} JOIN _atoma_hub_client c ON c.number=o.client
    WHERE c.client_id=? AND o.mid=? AND o.digest=? AND c.principal=?"""
_BY_ALIAS = f"""SELECT {_VERDICT} JOIN _atoma_hub_alias a ON a.client=o.client AND a.mid=o.mid
    JOIN _atoma_hub_client c ON c.number=o.client WHERE a.digest=? AND c.principal=?"""
_PUT_ALIAS = "INSERT OR IGNORE INTO _atoma_hub_alias(digest, client, mid) VALUES(?,?,?)"
_TRACES = "SELECT store, id, position, seq, survivor FROM _atoma_hub_trace WHERE scope=? AND epoch=?"
_RECOVERED = "SELECT position FROM _atoma_hub_recovered WHERE scope=? AND epoch=?"
_PUT_RECOVERED = """INSERT INTO _atoma_hub_recovered(scope, epoch, position) VALUES(?,?,?)
    ON CONFLICT(scope, epoch) DO UPDATE SET position=max(position, excluded.position)"""
_PUT_TRACE = """INSERT INTO _atoma_hub_trace(scope, epoch, store, id, position, seq, survivor) VALUES(?,?,?,?,?,?,?)
    ON CONFLICT(scope, epoch, store, id) DO UPDATE SET position=excluded.position, seq=excluded.seq"""
_COUNT_COMMIT = "UPDATE _atoma_hub_info SET commits=commits+1 RETURNING commits"
_UNIT_ANSWERS = "SELECT idem, outcome FROM _atoma_hub_idem WHERE principal=? AND idem>? AND idem<?"


class _Detail(msgspec.Struct, frozen=True, array_like=True):
    error: ErrorInfo | None
    conflicts: tuple[Conflict, ...]


def read_image(packed: bytes) -> RowImage:
    """The image in a log entry or tombstone."""
    return as_image(cast("dict[str, object]", msgspec.msgpack.decode(packed)))


def read_outcome(mid: int, status: str, scope: str, seq: int, detail: bytes | None) -> Outcome:
    """An outcome from its row."""
    found = _Detail(None, ()) if detail is None else decode(detail, _Detail)
    return Outcome(mid, cast("OutcomeStatus", status), scope, seq, error=found.error, conflicts=found.conflicts)


def read_scope(connection: apsw.Connection, scope: str) -> ScopeState:
    """State of a scope; a fresh one when it was never written."""
    row = connection.execute("SELECT head, head_hash, floor FROM _atoma_hub_scope WHERE scope=?", (scope,)).fetchone()
    if row is None:
        return ScopeState(scope)
    return ScopeState(scope, cast("int", row[0]), cast("bytes", row[1]), cast("int", row[2]))


class DecisionRun:
    """The steps of one call, inside the caller's transaction; a client or scope is read and written once per run.

    Args:
        connection: The writing connection.
        statements: One per store.
        now_ms: Wall clock.
        careful: Whether every step can be taken back alone; otherwise those only that write to a store with a unique
            index, where a refusal is to be expected.

    Attributes:
        commits: The file's counter after this run, 0 when nothing was written.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        statements: Mapping[str, StoreStatements],
        now_ms: int,
        *,
        careful: bool = False,
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._now_ms = now_ms
        self._careful = careful
        self._clients: dict[bytes, tuple[int, ClientState]] = {}
        self._scopes: dict[str, ScopeState] = {}
        self._moved_clients: dict[bytes, None] = {}
        self._moved_scopes: set[str] = set()
        self._aliased: bool | None = None
        self._forgetful: bool | None = None
        self.commits = 0

    def run(self, steps: Sequence[Step]) -> list[Plan]:
        """Decide and write ``steps`` in order, up to the first that stops.

        Raises:
            NotTakenBack: The file refuses a row, and a part of the step is written: to be rolled back, and done again with care.
        """
        plans: list[Plan] = []
        before = self._connection.total_changes()
        for step in steps:
            need = step.need
            facts = self._load(need)
            plan = step.decide(facts)
            try:
                self._carry_out(need, facts, plan)
            except _InTheWay as refused:
                plan = step.decide(replace(facts, violation=str(refused)))
                self._carry_out(need, facts, plan)
            plans.append(plan)
            if plan.stop:
                break
        self._flush()
        if self._connection.total_changes() != before:
            self.commits = cast("int", self._connection.execute(_COUNT_COMMIT).get)
        return plans

    # facts

    def _load(self, need: Need) -> Facts:
        client = self._client(need.client_id)
        author = self._number(need.author)
        since = known_until(self._connection, need.scope, need.epoch, need.since) if need.since else 0
        answer = self._answer(need.answer)
        forgotten_ms = read_forgotten(self._connection) if need.answer is not None and answer is None else 0
        leftover = self._leftover(need.scope) if need.leftover else {}
        traces, recovered = ({}, 0) if need.recovers is None else self._traces(need, need.recovers)
        deletes, unproven = True, False
        if need.recovers is not None:
            _, deletes, unproven = load_word(self._connection, need.recovers.epoch, need.epoch)
        decided = None if need.origin is None else self._decided(need.origin, need.principal, renamed=need.renamed)
        return Facts(
            client=client,
            scope=self._scope(need.scope),
            rows={key: self._row(need, key, author, since) for key in dict.fromkeys((*need.rows, *traces, *leftover))},
            traces=traces,
            recovered_until=recovered,
            deletes=deletes,
            unproven=unproven,
            renewed_ms=load_renewal(self._connection) if need.opening else 0,
            since=since,
            decided=decided,
            doubtful=decided is None and need.origin is not None and self._is_doubtful(need, need.origin),
            expired=bool(need.client_id) and client is None and is_forgotten(self._connection, need.client_id),
            traceless=bool(need.client_id)
            and client is None
            and forgets_without_a_trace(self._connection, need.principal),
            outcomes=self._outcomes(need, client),
            answer=answer,
            now_ms=self._now_ms,
            unit=self._unit(need.unit),
            forgotten_ms=forgotten_ms,
            leftover=leftover,
            versions=read_versions(self._connection, need.scope) if need.versions else PLAIN,
            spent=forgotten_ms > 0 and self._is_spent(need),
        )

    def _client(self, client_id: bytes) -> ClientState | None:
        if not client_id:
            return None
        if client_id not in self._clients:
            row = self._connection.execute(
                "SELECT number, incarnation, principal, last_mid, last_digest, confirmed_mid, seen_ms "
                "FROM _atoma_hub_client WHERE client_id=?",
                (client_id,),
            ).fetchone()
            if row is None:
                return None
            state = cast("tuple[int, str, int, bytes, int, int]", row[1:])
            self._clients[client_id] = (cast("int", row[0]), ClientState(client_id, *state))
        return self._clients[client_id][1]

    def _is_spent(self, need: Need) -> bool:
        keys = [key for key in (need.answer, _first_of(need.unit)) if key is not None]
        sql = "SELECT 1 FROM _atoma_hub_spent WHERE key=?"
        return any(self._connection.execute(sql, (gravestone(*key),)).get is not None for key in keys)

    def _decided(self, origin: Origin, principal: str, *, renamed: bool) -> StoredOutcome | None:
        """The outcome of a mutation that came under another name: its first one, or one that was drawn later."""
        if self._aliased is None:
            self._aliased = self._connection.execute("SELECT 1 FROM _atoma_hub_alias LIMIT 1").get is not None
        row = None
        if renamed:
            first = (origin.client_id, origin.mid, origin.digest)
            row = self._connection.execute(_BY_ORIGIN, (*first, principal)).fetchone()
        if row is None and self._aliased:
            row = self._connection.execute(_BY_ALIAS, (origin.digest, principal)).fetchone()
        if row is None:
            return None
        outcome = read_outcome(*cast("tuple[int, str, str, int, bytes | None]", row[:-1]))
        return StoredOutcome(outcome, cast("bytes", row[-1]))

    def _is_doubtful(self, need: Need, origin: Origin) -> bool:
        """Whether the mutation may have been decided under another name, and how is forgotten."""
        if self._forgetful is None:
            self._forgetful = has_forgotten(self._connection)
        if not (self._forgetful or need.renamed):
            return False
        return may_have_been_decided(self._connection, origin, need.principal, renamed=need.renamed)

    def _traces(self, need: Need, offer: Recovers) -> tuple[dict[RowKey, Trace], int]:
        """What offers of the same lost history have left on the needed rows, or on all rows, and how far they reach."""
        execute = self._connection.execute
        if offer.last:
            found = execute(f"{_TRACES} AND position<?", (need.scope, offer.epoch, offer.position)).fetchall()
        else:
            found = [
                row
                for key in need.rows
                for row in execute(f"{_TRACES} AND store=? AND id=?", (need.scope, offer.epoch, *key))
            ]
        rows = cast("list[tuple[str, str, int, int, int]]", found)
        reached: object = execute(_RECOVERED, (need.scope, offer.epoch)).get
        known = {
            (store, id): Trace(position, seq, bool(survivor))
            for store, id, position, seq, survivor in rows
            if store in self._statements
        }
        return known, reached if isinstance(reached, int) else 0

    def _leftover(self, scope: str) -> dict[RowKey, RowImage | None]:
        """Rows of what lies behind the scope's head, as they were before it."""
        found = self._connection.execute(_LEFTOVER, (scope, self._scope(scope).head)).fetchall()
        rows = cast("list[tuple[str, str, bytes | None]]", found)
        return {
            (store, id): None if pre is None else read_image(pre)
            for store, id, pre in reversed(rows)
            if store in self._statements
        }

    def _forget_leftover(self, scope: str) -> None:
        for table in ("tx", "change"):
            sql = f"DELETE FROM _atoma_hub_{table} WHERE scope=? AND seq>?"
            self._connection.execute(sql, (scope, self._scope(scope).head))

    def _put_traces(self, need: Need, facts: Facts, plan: Plan) -> None:
        offer, execute = need.recovers, self._connection.execute
        assert offer is not None
        if plan.recovered_until:
            execute(_PUT_RECOVERED, (need.scope, offer.epoch, plan.recovered_until))
        moved = () if plan.transaction is None else {(change.store, change.id) for change in plan.transaction.changes}
        for key in plan.traces:
            seq = plan.transaction.seq if plan.transaction is not None and key in moved else facts.rows[key].seq
            execute(_PUT_TRACE, (need.scope, offer.epoch, *key, offer.position, seq, facts.rows[key].image is not None))

    def _number(self, client_id: bytes) -> int:
        """The client's number: 0 for direct writes, -1 for one that was never seen."""
        self._client(client_id)
        if client_id == DIRECT:
            return 0
        return self._clients[client_id][0] if client_id in self._clients else -1

    def _scope(self, scope: str) -> ScopeState:
        if scope not in self._scopes:
            self._scopes[scope] = read_scope(self._connection, scope)
        return self._scopes[scope]

    def _row(self, need: Need, key: RowKey, author: int, since: int) -> RowFact:
        store, id = key
        row = self._connection.execute(self._statements[store].get, (need.scope, id)).fetchone()
        last: RowImage | None = None
        image: RowImage | None = None
        if row is not None:
            image = self._statements[store].image(row[:-4])
        else:
            row = self._connection.execute(_TOMBSTONE, (need.scope, store, id)).fetchone()
            if row is None:
                return RowFact()
            last = read_image(cast("bytes", row[0]))
        seq, other, number, writer = cast("tuple[int, int | None, int, bytes | None]", row[-4:])
        if other is None:
            other = self._other_seq((need.scope, store, id), seq, number)
        changes: tuple[ForeignChange, ...] = ()
        if seq > since and need.author != DIRECT:
            rows = self._connection.execute(_FOREIGN, (need.scope, store, id, since, author))
            changes = tuple(_foreign(cast("str | None", fields), bool(gone)) for fields, gone in rows)
        return RowFact(image, seq, writer or DIRECT, last, changes, other)

    def _other_seq(self, row: tuple[str, str, str], seq: int, author: int) -> int:
        """For a row from before this was kept: what the log tells, else anything that lies below its floor."""
        found: object = self._connection.execute(_OTHER, (*row, author)).get
        return found if isinstance(found, int) else min(seq, self._scope(row[0]).floor)

    def _outcomes(self, need: Need, client: ClientState | None) -> dict[int, StoredOutcome]:
        found: dict[int, StoredOutcome] = {}
        for mid in need.mids:
            if client is None or mid > client.last_mid:
                continue  # not decided yet
            row = self._connection.execute(_GET_OUTCOME, (self._number(need.client_id), mid)).fetchone()
            if row is not None:
                status, scope, seq, detail, digest = cast("tuple[str, str, int, bytes | None, bytes]", row)
                found[mid] = StoredOutcome(read_outcome(mid, status, scope, seq, detail), digest)
        return found

    def _answer(self, key: tuple[str, str] | None) -> bytes | None:
        if key is None:
            return None
        answer: object = self._connection.execute(
            "SELECT outcome FROM _atoma_hub_idem WHERE principal=? AND idem=?", key
        ).get
        return answer if isinstance(answer, bytes) else None

    def _unit(self, key: tuple[str, str] | None) -> tuple[bytes, ...]:
        """Answers of ``key:0``, ``key:1`` … up to the first that is missing."""
        if key is None:
            return ()
        principal, idem = key
        kept = dict(
            cast(
                "Iterator[tuple[str, bytes]]",
                self._connection.execute(_UNIT_ANSWERS, (principal, f"{idem}:", f"{idem};")),
            )
        )
        numbered = (item_key(idem, index, atomic=False, size=2) for index in itertools.count())
        return tuple(kept[key] for key in itertools.takewhile(kept.__contains__, numbered))

    # plans

    def _carry_out(self, need: Need, facts: Facts, plan: Plan) -> None:
        changes = plan.transaction.changes if plan.transaction is not None else ()
        if not self._careful and not any(self._statements[change.store].unique for change in changes):
            try:
                self._write(need, facts, plan)
            except _InTheWay:
                raise NotTakenBack from None
            return
        self._connection.execute("SAVEPOINT hub_step")
        try:
            self._write(need, facts, plan)
        except _InTheWay:
            self._connection.execute("ROLLBACK TO hub_step")
            self._connection.execute("RELEASE hub_step")
            raise
        self._connection.execute("RELEASE hub_step")

    def _write(self, need: Need, facts: Facts, plan: Plan) -> None:
        if plan.client is not None and facts.client is None:
            make_room(self._connection, plan.client.principal, self._clients)
            self._forgetful = None
            self._put_client(plan.client)  # its changes need its number
        if need.leftover:
            self._forget_leftover(need.scope)
        if plan.transaction is not None:
            self._put_transaction(plan.transaction, facts.rows)
        if plan.outcome is not None:
            self._put_outcome(need.client_id, plan.outcome)
            if need.origin is not None and need.renamed:
                self._put_alias(need.origin, need.client_id, plan.outcome.outcome.mid)
        if need.recovers is not None:
            self._put_traces(need, facts, plan)
        if plan.answer is not None:
            assert need.answer is not None
            self._connection.execute(
                "INSERT INTO _atoma_hub_idem(principal, idem, outcome, at_ms) VALUES(?,?,?,?)",
                (*need.answer, plan.answer, self._now_ms),
            )
        if plan.client is not None and plan.client != facts.client:
            assert facts.client is not None or plan.client.client_id in self._clients
            if facts.client is not None:
                self._moved_clients[plan.client.client_id] = None
            self._clients[plan.client.client_id] = (self._number(plan.client.client_id), plan.client)

    def _flush(self) -> None:
        """Write the clients and scopes as the last step left them."""
        for client_id in self._moved_clients:
            self._put_client(self._clients[client_id][1])
        for scope in self._moved_scopes:
            state = self._scopes[scope]
            self._connection.execute(_PUT_SCOPE, (scope, state.head, state.head_hash))

    def _put_client(self, after: ClientState) -> None:
        values = (after.client_id, after.incarnation, after.principal, after.last_mid, after.last_digest)
        number: object = self._connection.execute(_PUT_CLIENT, (*values, after.confirmed_mid, self._now_ms)).get
        assert isinstance(number, int)
        self._clients[after.client_id] = (number, after)

    def _put_outcome(self, client_id: bytes, stored: StoredOutcome) -> None:
        outcome = stored.outcome
        detail = None
        if outcome.error is not None or outcome.conflicts:
            detail = encode(_Detail(outcome.error, outcome.conflicts))
        values = (outcome.mid, outcome.status, outcome.scope, outcome.seq, stored.digest, detail, self._now_ms)
        self._connection.execute(_PUT_OUTCOME, (self._number(client_id), *values))

    def _put_alias(self, origin: Origin, client_id: bytes, mid: int) -> None:
        self._connection.execute(_PUT_ALIAS, (origin.digest, self._number(client_id), mid))
        self._aliased = True

    def _put_transaction(self, tx: LogTransaction, rows: Mapping[RowKey, RowFact]) -> None:
        execute = self._connection.execute
        state = self._scope(tx.scope)
        assert tx.seq == state.head + 1, "I7: a scope's sequence is dense"
        author = self._number(tx.author)
        row = (tx.scope, tx.seq, tx.hash, author, tx.mid, tx.principal, self._now_ms, len(tx.changes), tx.size)
        execute(_PUT_TX, row)
        for change in tx.changes:
            if change.pre is not None and (change.post is None or self._statements[change.store].unique):
                self._touch(change, self._statements[change.store].delete, (tx.scope, change.id))
        for index, change in enumerate(tx.changes):
            self._put_change(tx, index, change, author, rows[change.store, change.id])
        self._moved_scopes.add(tx.scope)
        self._scopes[tx.scope] = ScopeState(tx.scope, tx.seq, tx.hash, state.floor)

    def _put_change(self, tx: LogTransaction, index: int, change: RowChange, author: int, before: RowFact) -> None:
        execute = self._connection.execute
        other = before.other_seq if before.author == tx.author else before.seq
        pre = None if change.pre is None else encode(change.pre)
        fields = None if change.fields is None else msgspec.json.encode(change.fields).decode()
        key = (tx.scope, tx.seq, index, change.store, change.id)
        execute(_PUT_CHANGE, (*key, author, fields, pre, change.body))
        if change.post is None:
            assert pre is not None
            execute(_PUT_TOMBSTONE, (tx.scope, change.store, change.id, tx.seq, other, author, pre))
            return
        if before.last is not None:
            execute(
                "DELETE FROM _atoma_hub_tombstone WHERE scope=? AND store=? AND id=?",
                (tx.scope, change.store, change.id),
            )
        statements = self._statements[change.store]
        values: list[Scalar] = [change.post[column] for column in statements.columns]
        self._touch(change, statements.put, (change.id, *values, author, tx.seq, other, tx.scope))

    def _touch(self, change: RowChange, sql: str, values: tuple[Scalar, ...]) -> None:
        """Write a row that people see.

        Raises:
            _InTheWay: The file refuses it.
        """
        try:
            self._connection.execute(sql, values)
        except (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
            if isinstance(error, apsw.ConstraintError) and is_unique_violation(error):
                raise _InTheWay(f"another {change.store} row has a value that must be unique") from None
            raise _InTheWay(f"the database refuses a value of {change.store}") from None


class _InTheWay(Exception):
    """The file refuses a row of the plan: a unique index, or what an operator has added."""


class NotTakenBack(Exception):
    """The file refused a row where that was not expected, and a part of the step is written."""


def _first_of(unit: tuple[str, str] | None) -> tuple[str, str] | None:
    """Where the answer of the first of several mutations is kept."""
    return None if unit is None else (unit[0], item_key(unit[1], 0, atomic=False, size=2))


def _foreign(fields: str | None, deleted: bool) -> ForeignChange:
    return ForeignChange(None if fields is None else msgspec.json.decode(fields, type=tuple[str, ...]), deleted)
