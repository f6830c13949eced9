"""What is known inside a transaction: facts as they were loaded, and what the decisions made so far have changed in them.

Nothing here knows a database. A group of decisions, also of several callers, is decided over one state, each decision on what the
earlier ones have left; a run that fails is taken back alone.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from atoma.contracts.boots import BootedPlace, booted
from atoma.contracts.execution import item_key
from atoma.contracts.mutations import Origin, Recovers
from atoma.contracts.values import RowImage, RowKey
from atoma.contracts.versions import PLAIN
from atoma.ports.hub import (
    UNTAKEN,
    ClientState,
    Decision,
    EndedEpoch,
    Facts,
    LogTransaction,
    Need,
    ScopeState,
    StoredOutcome,
    Trace,
    WritePlan,
)
from atoma.ports.hub_rows import DIRECT, ForeignChange, RowFact, TheirChange
from atoma.ports.hub_sql import NOTES, SqlNotes
from atoma_stores.sql.hub.clients import ClientCount, Forgotten
from atoma_stores.sql.hub.epochs import NO_WORD, versions_of, word_of
from atoma_stores.sql.hub.rows import gravestone

K = TypeVar("K")
V = TypeVar("V")

RowAddress: TypeAlias = tuple[str, str, str]
"""Scope, store and id of a row."""
OfferBatch: TypeAlias = tuple[str, bytes]
"""The scope and the lost epoch of offers."""
LogPosition: TypeAlias = tuple[str, bytes, int]
"""A scope, an epoch, and a sequence of it."""
SeenVersion: TypeAlias = tuple[str, str, str, int, bytes, bytes]
"""A row's address, which sequence of which epoch somebody has seen, and who that is."""
_NOTHING = RowFact()
_UNSET: Any = object()


class MadeDecision(Struct, frozen=True):
    """A decision that was made.

    Attributes:
        need: What it wanted.
        facts: What it was decided by.
        plan: What it decided.
        now_ms: Wall clock of its run.
        forgets: Clients that leave room for a new one.
    """

    need: Need
    facts: Facts
    plan: WritePlan
    now_ms: int
    forgets: Sequence[Forgotten] = ()


@dataclass(slots=True)
class Run:
    """Decisions that are made in order, up to the first that stops.

    Attributes:
        decisions: The decisions.
        needs: What each of them wants.
        size: About how many bytes they write.
        now_ms: Wall clock.
        plans: What was decided.
        error: What a decision raised: then nothing of the run is written.
        commits: The hub's counter of commits once it is written, 0 when nothing was.
        notes: Where the SQL of its caller is noted, None where nobody asks.
    """

    decisions: Sequence[Decision]
    now_ms: int
    needs: list[Need] = field(init=False)
    size: int = field(init=False)
    plans: list[WritePlan] = field(default_factory=list[WritePlan])
    error: Exception | None = None
    commits: int = 0
    notes: SqlNotes | None = field(default_factory=NOTES.get)

    def __post_init__(self) -> None:
        self.needs = [decision.need for decision in self.decisions]
        self.size = sum(need.size for need in self.needs)


@dataclass(slots=True)
class State:
    """Facts and what has become of them.

    Attributes:
        epoch: The hub's epoch.
        commits: The hub's counter of commits.
        boot: Which boot of the hub it is.
        scopes: The scopes that were ever written.
        clients: The clients that are known.
        numbers: Their numbers, …
        fresh: … and those for the ones that are not known yet.
        stored: Scopes and clients of which the database has a row.
        expired: Clients, and first digests of mutations, that have been forgotten.
        rooms: By principal; of whoever has a client here.
        rows: Rows, and tombstones as rows without an image.
        foreign: What others had done to a row before this transaction.
        theirs: The same, each with what it did, of stores whose rules look back.
        since: What is known of the scope's history now to somebody who has seen a sequence of an epoch.
        outcomes: By client and number.
        origins: Outcomes by the first name of a mutation, and the principal who asks.
        aliases: Outcomes by a digest that was renamed, and the principal.
        answers: Answers of direct writes by principal and key.
        forgotten_ms: Time before which answers may have been forgotten.
        spent: What is kept of keys whose answers are gone.
        traces: What offers have left on rows.
        reached: How far offers have come.
        furthest: Where the device was that had seen most of those whose offers have come.
        brought: Sequences of the rows that offers have brought back, as they were then.
        firsts: Of a client and one of its numbers, what it was decided up to, and whether an outcome is kept there; None for
            a client that is not known.
        ended: Epochs that have ended, the oldest first.
        ends: The head of a scope at the end of each of them.
        leftover: Rows of what lies behind a scope's head, as they were before it.
        counters: By scope, the last number of each counter.
        decided: What has been decided.
    """

    epoch: bytes = b""
    commits: int = 0
    boot: bytes = b""
    scopes: dict[str, ScopeState] = field(default_factory=dict[str, ScopeState])
    clients: dict[bytes, ClientState] = field(default_factory=dict[bytes, ClientState])
    numbers: dict[bytes, int] = field(default_factory=dict[bytes, int])
    fresh: dict[bytes, int] = field(default_factory=dict[bytes, int])
    stored: dict[str | bytes, bool] = field(default_factory=dict[str | bytes, bool])
    expired: dict[bytes, bool] = field(default_factory=dict[bytes, bool])
    rooms: dict[str, ClientCount] = field(default_factory=dict[str, ClientCount])
    rows: dict[RowAddress, RowFact] = field(default_factory=dict[RowAddress, RowFact])
    foreign: dict[SeenVersion, list[ForeignChange]] = field(default_factory=dict[SeenVersion, list[ForeignChange]])
    theirs: dict[SeenVersion, list[TheirChange]] = field(default_factory=dict[SeenVersion, list[TheirChange]])
    since: dict[LogPosition, int] = field(default_factory=dict[LogPosition, int])
    outcomes: dict[tuple[bytes, int], StoredOutcome] = field(default_factory=dict[tuple[bytes, int], StoredOutcome])
    origins: dict[tuple[Origin, str], StoredOutcome] = field(default_factory=dict[tuple[Origin, str], StoredOutcome])
    aliases: dict[tuple[bytes, str], StoredOutcome] = field(default_factory=dict[tuple[bytes, str], StoredOutcome])
    answers: dict[tuple[str, str], bytes] = field(default_factory=dict[tuple[str, str], bytes])
    forgotten_ms: int = 0
    spent: set[bytes] = field(default_factory=set[bytes])
    traces: dict[OfferBatch, dict[RowKey, Trace]] = field(default_factory=dict[OfferBatch, dict[RowKey, Trace]])
    brought: dict[RowAddress, int] = field(default_factory=dict[RowAddress, int])
    reached: dict[OfferBatch, int] = field(default_factory=dict[OfferBatch, int])
    furthest: dict[OfferBatch, BootedPlace] = field(default_factory=dict[OfferBatch, BootedPlace])
    firsts: dict[tuple[Origin, str], tuple[int, bool] | None] = field(
        default_factory=dict[tuple[Origin, str], "tuple[int, bool] | None"]
    )
    ended: list[EndedEpoch] = field(default_factory=list[EndedEpoch])
    ends: dict[str, list[tuple[bytes, int]]] = field(default_factory=dict[str, list[tuple[bytes, int]]])
    leftover: dict[str, dict[RowKey, RowImage | None]] = field(
        default_factory=dict[str, dict[RowKey, "RowImage | None"]]
    )
    counters: dict[str, Mapping[str, int]] = field(default_factory=dict[str, "Mapping[str, int]"])
    decided: list[MadeDecision] = field(default_factory=list[MadeDecision])
    _changed: dict[RowAddress, tuple[tuple[TheirChange, ForeignChange], ...]] = field(
        default_factory=dict[RowAddress, tuple[tuple[TheirChange, ForeignChange], ...]]
    )
    _journal: list[tuple[dict[Any, Any], Any, Any]] = field(default_factory=list[tuple[dict[Any, Any], Any, Any]])

    def decide(self, run: Run, mark: tuple[int, int]) -> Need | None:
        """Make the decisions of ``run`` that are not made yet; what has to be loaded before the next one can be, None for nothing.

        When a decision raises, nothing of the run is left here since ``mark``.
        """
        try:
            while len(run.plans) < len(run.decisions) and not (run.plans and run.plans[-1].stop):
                at = len(run.plans)
                plan = self.decide_one(run.decisions[at], run.needs[at], run.now_ms)
                if plan.wants:
                    run.needs[at] = also(run.needs[at], plan)
                    return run.needs[at]
                run.plans.append(plan)
        except Exception as error:
            self.undo(mark)
            run.plans, run.error = [], error
        return None

    def decide_one(
        self, decision: Decision, need: Need, now_ms: int, violation: str = "", *, again: bool = False
    ) -> WritePlan:
        """Make one decision; ``violation`` is why the database has refused what it had decided, ``again`` another plan.

        A plan that wants more than ``need`` has left nothing here.
        """
        facts = self.facts(need, now_ms)
        plan = decision.decide(replace(facts, violation=violation, again=again) if violation else facts)
        if not plan.wants:
            self._take(need, facts, plan, now_ms)
        return plan

    def look(self, found: State) -> None:
        """Take the rows that were loaded later, but for those that earlier decisions have written by now."""
        for address, fact in found.rows.items():
            self.rows.setdefault(address, fact)

    def mark(self) -> tuple[int, int]:
        """Where :meth:`undo` goes back to."""
        return len(self._journal), len(self.decided)

    def undo(self, mark: tuple[int, int]) -> None:
        """Make everything as it was at ``mark``."""
        journal, decided = mark
        while len(self._journal) > journal:
            table, key, before = self._journal.pop()
            if before is _UNSET:
                del table[key]
            else:
                table[key] = before
        del self.decided[decided:]

    def note_stored(self, key: str | bytes) -> None:
        """The database has a row of this scope or client from now on."""
        self._set(self.stored, key, True)

    # facts

    def facts(self, need: Need, now_ms: int) -> Facts:
        """What ``need`` asks for."""
        client = self.clients.get(need.client_id) if need.client_id else None
        since = self.since[need.scope, need.epoch, need.since] if need.since else 0
        answer = None if need.answer is None else self.answers.get(need.answer)
        forgotten_ms = self.forgotten_ms if need.answer is not None and answer is None else 0
        comparable = need.recovers
        if comparable is not None and self._is_apart(need.scope, comparable):
            comparable = None
        traces = {} if comparable is None else self._traces(need, comparable)
        leftover = self.leftover.get(need.scope, {}) if need.leftover else {}
        _, deletes, unproven = NO_WORD
        if need.recovers is not None:
            _, deletes, unproven = word_of(self.ended, self.epoch, need.recovers.epoch, need.epoch)
        decided = None if need.origin is None else self._named(need.origin, need.principal, renamed=need.renamed)
        unknown = bool(need.client_id) and client is None
        return Facts(
            client=client,
            scope=self.scopes.get(need.scope) or ScopeState(need.scope),
            rows={key: self._row(need, key, since) for key in (*need.rows, *traces, *leftover)},
            outcomes=self._outcomes(need),
            answer=answer,
            now_ms=now_ms,
            epoch=self.epoch,
            unit=self._unit(need.unit),
            forgotten_ms=forgotten_ms,
            spent=forgotten_ms > 0 and any(gravestone(*key) in self.spent for key in keys_of(need)),
            since=since,
            expired=unknown and need.client_id in self.expired,
            traceless=unknown and self.rooms[need.principal].forgets_without_a_trace,
            decided=decided,
            doubtful=decided is None and need.origin is not None and self._is_doubtful(need, need.origin),
            leftover=leftover,
            versions=versions_of(self.epoch, self.ends.get(need.scope, ())) if need.versions else PLAIN,
            traces=traces,
            recovered_until=0 if comparable is None else self.reached.get((need.scope, comparable.epoch), 0),
            deletes=deletes,
            unproven=unproven,
            ended=tuple(self.ended) if need.opening else (),
            counters=self.counters.get(need.scope, {}) if need.counters else {},
            brought=frozenset(self._brought(need, since)) if need.brought else frozenset(),
        )

    def _row(self, need: Need, key: RowKey, since: int) -> RowFact:
        address = (need.scope, *key)
        fact = self.rows.get(address)
        if fact is None:
            return _NOTHING
        if fact.seq <= since or need.author == DIRECT:
            return fact
        seen = (*address, need.since, need.epoch, need.author)
        changed = [one for one in self._changed.get(address, ()) if one[0].seq > since and one[0].author != need.author]
        found = [*self.foreign.get(seen, ()), *(change for _, change in changed)]
        if not found:
            return fact
        theirs = (*self.theirs.get(seen, ()), *(made for made, _ in changed))
        return replace(fact, foreign=tuple(dict.fromkeys(found)), theirs=theirs)

    def _brought(self, need: Need, since: int) -> Iterator[RowKey]:
        for key in need.rows:
            address = (need.scope, *key)
            if self.brought.get(address, 0) > since:
                yield key

    def _outcomes(self, need: Need) -> dict[int, StoredOutcome]:
        known = self.outcomes
        return {mid: known[need.client_id, mid] for mid in need.mids if (need.client_id, mid) in known}

    def _unit(self, key: tuple[str, str] | None) -> tuple[bytes, ...]:
        """Answers of ``key:0``, ``key:1`` … up to the first that is missing."""
        if key is None:
            return ()
        principal, idem = key
        numbered = ((principal, item_key(idem, index, atomic=False, size=2)) for index in itertools.count())
        return tuple(self.answers[key] for key in itertools.takewhile(self.answers.__contains__, numbered))

    def _named(self, origin: Origin, principal: str, *, renamed: bool) -> StoredOutcome | None:
        """The outcome of a mutation that came under another name: its first one, or one that was drawn later."""
        if renamed:
            found = self.origins.get((origin, principal)) or self._by_first_name(origin, principal)
            if found is not None:
                return found
        return self.aliases.get((origin.digest, principal))

    def _by_first_name(self, origin: Origin, principal: str) -> StoredOutcome | None:
        found, client = self.outcomes.get((origin.client_id, origin.mid)), self.clients.get(origin.client_id)
        if found is None or client is None or client.principal != principal or found.digest != origin.digest:
            return None
        return found

    def _is_doubtful(self, need: Need, origin: Origin) -> bool:
        """Whether the mutation may have been decided under another name, and how is forgotten.

        Under its first number that is so when its client came that far or is forgotten itself, and under a later one when it is
        kept that it had one.
        """
        if origin.digest in self.expired:
            return True
        if not need.renamed:
            return False
        first, client = self.firsts[origin, need.principal], self.clients.get(origin.client_id)
        if client is not None and client.principal == need.principal:  # more may have been decided in this group
            is_another = first is not None and first[1]
            first = client.last_mid, is_another or (origin.client_id, origin.mid) in self.outcomes
        if first is None:
            return origin.client_id in self.expired or self.rooms[need.principal].forgets_without_a_trace
        last_mid, is_another = first
        return origin.mid <= last_mid and not is_another

    def _is_apart(self, scope: str, offer: Recovers) -> bool:
        """Whether ``offer`` is of another history than those that have come under the name of its epoch."""
        return not offer.witness.is_on_the_way_of(self.furthest.get((scope, offer.epoch), BootedPlace()))

    def batch_of(self, scope: str, offer: Recovers) -> OfferBatch:
        """What ``offer`` belongs to; what is apart has a name that no epoch has, and keeps it whatever comes on the way of the others."""
        if not self._is_apart(scope, offer):
            return scope, offer.epoch
        return scope, hashlib.sha256(offer.epoch + offer.witness.boots).digest()[: len(offer.epoch)]

    def _traces(self, need: Need, offer: Recovers) -> dict[RowKey, Trace]:
        """What offers of the same lost history have left on the needed rows, or on all rows before the last one's place."""
        left = self.traces.get((need.scope, offer.epoch), {})
        if offer.last:
            return {key: trace for key, trace in left.items() if trace.position < offer.position}
        return {key: left[key] for key in need.rows if key in left}

    # what becomes of them

    def _take(self, need: Need, facts: Facts, plan: WritePlan, now_ms: int) -> None:
        forgets: Sequence[Forgotten] = ()
        if plan.client is not None and plan.client != facts.client:
            if facts.client is None:
                forgets = self._make_room(plan.client)
            self._set(self.clients, plan.client.client_id, plan.client)
        if plan.transaction is not None:
            self._take_transaction(plan.transaction, facts)
        if plan.counters:
            self._set(self.counters, need.scope, {**self.counters.get(need.scope, {}), **plan.counters})
        if plan.outcome is not None:
            self._take_outcome(need, plan.outcome)
        if plan.answer is not None:
            assert need.answer is not None
            self._set(self.answers, need.answer, plan.answer)
        if need.recovers is not None:
            self._take_traces(need, need.recovers, facts, plan)
        self.decided.append(MadeDecision(need, facts, plan, now_ms, forgets))

    def _make_room(self, client: ClientState) -> Sequence[Forgotten]:
        self._set(self.numbers, client.client_id, self.fresh[client.client_id])
        room, forgets = self.rooms[client.principal].with_one_more(client.principal, self.clients)
        self._set(self.rooms, client.principal, room)
        for gone in forgets:
            for name in gone.kept:
                self._set(self.expired, name, True)
        return forgets

    def _take_transaction(self, tx: LogTransaction, facts: Facts) -> None:
        scope = self.scopes.get(tx.scope) or ScopeState(tx.scope)
        assert tx.seq == scope.head + 1, "I7: a scope's sequence is dense"
        boots = booted(scope.boots, tx.seq, self.boot)
        self._set(self.scopes, tx.scope, replace(scope, head=tx.seq, head_hash=tx.hash, boots=boots))
        for change in tx.changes:
            address = (tx.scope, change.store, change.id)
            before = facts.rows[change.store, change.id]
            other = before.other_seq if before.author == tx.author else before.seq
            last = change.pre if change.post is None else None
            self._set(self.rows, address, RowFact(change.post, tx.seq, tx.author, last, (), other))
            made = TheirChange(tx.seq, tx.author, tx.written_ms, change.pre, change.post)
            foreign = ForeignChange(change.fields, change.post is None)
            self._set(self._changed, address, (*self._changed.get(address, ()), (made, foreign)))

    def _take_outcome(self, need: Need, stored: StoredOutcome) -> None:
        self._set(self.outcomes, (need.client_id, stored.outcome.mid), stored)
        if need.origin is not None and need.renamed:
            name = (need.origin.digest, self.clients[need.client_id].principal)
            self._set(self.aliases, name, self.aliases.get(name, stored))

    def _take_traces(self, need: Need, offer: Recovers, facts: Facts, plan: WritePlan) -> None:
        offers = self.batch_of(need.scope, offer)
        if not self._is_apart(need.scope, offer):
            self._note_witness(offers, offer, plan)
        for key in plan.traces:
            address = (need.scope, *key)
            self._set(self.brought, address, self.rows[address].seq if address in self.rows else 0)
        if plan.traces or plan.refused:
            left = dict(self.traces.get(offers, {}))
            for key in (*plan.traces, *plan.refused):
                before = facts.traces.get(key) or Trace(UNTAKEN, 0, facts.rows[key].image is not None)
                if key in plan.refused:
                    left[key] = replace(before, refused=max(before.refused, offer.position))
                else:
                    seq = self.rows.get((need.scope, *key), _NOTHING).seq
                    left[key] = replace(before, position=offer.position, seq=seq)
            self._set(self.traces, offers, left)

    def _note_witness(self, offers: OfferBatch, offer: Recovers, plan: WritePlan) -> None:
        """Note how far offers have come, and where the device was that had seen most of the lost history."""
        if not (plan.traces or plan.refused or plan.recovered_until):
            return
        self._set(self.reached, offers, max(plan.recovered_until, self.reached.get(offers, 0)))
        known = self.furthest.get(offers, BootedPlace())
        if offer.proof and offer.seq >= known.seq:
            known = offer.witness
        self._set(self.furthest, offers, known)

    def _set(self, table: dict[K, V], key: K, value: V) -> None:
        self._journal.append((table, key, table.get(key, _UNSET)))
        table[key] = value


def also(need: Need, plan: WritePlan) -> Need:
    """``need`` with what ``plan`` wants."""
    return replace(need, rows=(*need.rows, *plan.wants))


def keys_of(need: Need) -> list[tuple[str, str]]:
    """The keys under which an answer may have been kept: its own, and that of the first of several mutations."""
    found = [] if need.answer is None else [need.answer]
    if need.unit is not None:
        found.append((need.unit[0], item_key(need.unit[1], 0, atomic=False, size=2)))
    return found
