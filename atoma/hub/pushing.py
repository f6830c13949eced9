"""Deciding pushed mutations, one after the other, strictly in ``mid`` order.

A permanent fault (malformed, denied, conflict, broken dependency) is a verdict: it is recorded and the queue moves on.
Whatever may pass (a busy or full disk, a hub with an older schema) is never one: nothing is recorded and the client
sends the same bytes again.

A mutation that changes nothing is ``applied`` at the head of its scope: no sequence is spent, and the client lets go of
it with the page that reaches that head, never before it has seen the state in which nothing had to be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio
from msgspec import Struct
from msgspec.structs import replace

from atoma.contracts.failures import refusal
from atoma.contracts.mutations import Origin
from atoma.contracts.survey import CONTAINERS_MAX, UNCOUNTED_BYTES, VALUES_MAX, Survey
from atoma.contracts.sync import Conflict, Limits, Mutation, OpenRequest, Outcome, OutcomeStatus, PushRequest
from atoma.contracts.values import ErrorInfo, RowKey
from atoma.errors import RemoteError
from atoma.hub.admission import CheckedMutation, Refusal, admit
from atoma.hub.conflicts import Seen, decide, decide_doubtful
from atoma.hub.custom import NO_CUSTOM_RULES, CustomRules
from atoma.hub.ids import check_drawn
from atoma.hub.lineage import broken_link, next_transaction
from atoma.hub.recovery import check_offer, is_of_one_history, refused, shared, take_offer, withdrawn
from atoma.hub.rules import PrincipalView, RowRules, Rules, not_replicated
from atoma.hub.setting import HubFields
from atoma.hub.workspace import Workspace
from atoma.mutations import counts
from atoma.ports.hub import ClientState, Decision, Facts, Greeting, LogTransaction, Need, StoredOutcome, WritePlan
from atoma.ports.service import Principal
from atoma.schema.schema import Schema

DAY_MS = 86_400_000
CLOCK_AHEAD_MS = 60_000
"""A device's clock is believed up to so far ahead of the hub's, where clocks decide."""
FIRST_INCARNATION = 1
CHECKED_AT_ONCE_BYTES = 64 * 1024
MUTATION_BYTES = 2 * 1024
"""What checking any mutation costs, in bytes of a large one."""


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """The schema, the rights, the bounds and the rules about rows that every decision is made by."""

    schema: Schema
    rules: Rules
    limits: Limits
    row_rules: RowRules
    hub_fields: HubFields
    customs: CustomRules = NO_CUSTOM_RULES
    deleted_rows: Callable[[Principal], bool] | None = None


def owned(facts: Facts, request: PushRequest, principal: Principal) -> ClientState:
    """The client's state; a fresh one, bound to ``principal``, at its first use.

    Raises:
        RemoteError: It belongs to somebody else, has another history, or has been forgotten.
    """
    known = facts.client
    if known is None:
        if is_expired(facts, request):
            message = (
                "the hub has forgotten this client, for its time away or for the number of others; take a new client id"
            )
            raise RemoteError(message, remote_code="CLIENT_EXPIRED")
        return ClientState(request.client_id, request.incarnation, principal.subject)
    of_principal(known, principal)
    if known.incarnation != request.incarnation:
        raise forked(f"the hub knows incarnation {known.incarnation} of this client, not {request.incarnation}")
    return known


def is_expired(facts: Facts, request: OpenRequest | PushRequest) -> bool:
    """Whether a client that is unknown has to be taken for one that was forgotten.

    Where some have been forgotten without a trace, that is whoever may be one of them: everybody but a client that has
    taken a new id, as its incarnation shows, and has received nothing under that yet.
    """
    begins_anew = request.incarnation > FIRST_INCARNATION and not request.confirmed_mid
    return facts.expired or (facts.traceless and not begins_anew)


def of_principal(client: ClientState, principal: Principal) -> ClientState:
    """``client``, if it belongs to ``principal``.

    Raises:
        RemoteError: It does not.
    """
    if client.principal != principal.subject:
        message = "this file belongs to another principal; a database file is used by one user"
        raise RemoteError(message, remote_code="WRONG_HUB")
    return client


def confirmed(client: ClientState, mid: int) -> ClientState:
    """``client``, whose mutations up to ``mid`` have left its outbox, as far as they were decided."""
    settled = max(client.confirmed_mid, min(mid, client.last_mid))
    return client if settled == client.confirmed_mid else replace(client, confirmed_mid=settled)


def forked(why: str) -> RemoteError:
    """The error for a client file that is a copy or an older state of one the hub knows."""
    return RemoteError(f"{why}; take a new client id and renumber the pending writes", remote_code="CLIENT_FORKED")


@dataclass(frozen=True, slots=True)
class OpenDecision:
    """The decision at an opening: it reports to a client what the hub knows of it, and notes what the client has confirmed.

    A client that has pushed nothing leaves no trace.
    """

    request: OpenRequest
    principal: Principal

    @property
    def need(self) -> Need:
        """The client, and the verdicts it asks for."""
        return Need(
            client_id=self.request.client_id, mids=self.request.asked, opening=True, principal=self.principal.subject
        )

    def decide(self, facts: Facts) -> WritePlan:
        """The client's new state, and a :class:`Greeting`; whether it is a copy is for the client to find out."""
        verdicts = tuple(facts.outcomes[mid] for mid in self.request.asked if mid in facts.outcomes)
        if facts.client is None:
            return WritePlan(
                reply=Greeting(None, not is_expired(facts, self.request), verdicts, facts.epoch, facts.ended)
            )
        client = confirmed(of_principal(facts.client, self.principal), self.request.confirmed_mid)
        renewed_ms = max((ended.ended_ms for ended in facts.ended), default=0)
        if facts.now_ms - client.seen_ms >= DAY_MS or client.seen_ms < renewed_ms:
            client = replace(client, seen_ms=facts.now_ms)
        return WritePlan(client=client, reply=Greeting(client, True, verdicts, facts.epoch, facts.ended))


@dataclass(frozen=True, slots=True)
class ConfirmDecision:
    """The decision about a push without mutations: it notes what the client has confirmed."""

    principal: Principal
    request: PushRequest

    @property
    def need(self) -> Need:
        """The client."""
        return Need(client_id=self.request.client_id)

    def decide(self, facts: Facts) -> WritePlan:
        """The client's new state."""
        if facts.client is None:
            return WritePlan()
        return WritePlan(client=confirmed(of_principal(facts.client, self.principal), self.request.confirmed_mid))


class _Verdict(Struct, frozen=True, gc=False):
    """An outcome, what it writes, and the rows of an offer that count."""

    outcome: Outcome
    transaction: LogTransaction | None = None
    recovered: tuple[RowKey, ...] = ()
    counters: Mapping[str, int] = {}


class PushDecision(Struct, frozen=True):
    """The decision about one mutation.

    Attributes:
        mutation: The mutation.
        previous: Digest chain before it, as the client says.
        admitted: The checked mutation, or why it cannot be one.
        view: What the principal sees of rows; one for all decisions of a push, since it is made of rules.
    """

    context: DecisionContext
    principal: Principal
    request: PushRequest
    mutation: Mutation
    previous: bytes
    admitted: CheckedMutation | Refusal
    view: PrincipalView

    @property
    def need(self) -> Need:
        """The client, the scope, the rows, and the outcomes that the operations depend on."""
        client_id, mid = self.request.client_id, self.mutation.mid
        if isinstance(self.admitted, Refusal):
            return Need(client_id=client_id, mids=(mid,), principal=self.principal.subject)
        body, ops = self.admitted.body, self.admitted.ops
        origin = body.origin or Origin(client_id, mid, self.mutation.digest)
        return Need(
            client_id=client_id,
            mids=(mid, *sorted({op.after_mid for op in ops if op.after_mid})),
            scope=body.scope,
            rows=tuple(dict.fromkeys((op.store, op.id) for op in ops)),
            since=body.base_seq,
            epoch=body.base_epoch,
            author=client_id,
            origin=origin,
            renamed=body.origin is not None,
            principal=self.principal.subject,
            recovers=body.recovers,
            counters=self.context.hub_fields.counts,
            brought=any(map(counts, ops)),
            size=len(self.mutation.body),
        )

    def decide(self, facts: Facts) -> WritePlan:
        """The verdict; the same one again for a mutation that was decided before."""
        client = owned(facts, self.request, self.principal)
        mid = self.mutation.mid
        if mid <= client.last_mid:
            return self._again(client, facts)
        if mid != client.last_mid + 1:
            return out_of_order(client, mid)
        if self.previous != client.last_digest:
            raise forked(f"the digests differ before mutation {mid}")
        if not isinstance(self.admitted, Refusal) and self.admitted.body.schema_version > self.context.schema.version:
            return too_new(client, self.admitted.body.schema_version, self.context.schema)
        verdict = self._verdict(facts)
        outcome = verdict.outcome
        admitted = None if isinstance(self.admitted, Refusal) else self.admitted
        offer = None if admitted is None else admitted.body.recovers
        digest = self.mutation.digest
        after = confirmed(replace(client, last_mid=mid, last_digest=digest), self.request.confirmed_mid)
        plan = WritePlan(
            after, verdict.transaction, StoredOutcome(outcome, digest), reply=outcome, counters=verdict.counters
        )
        if admitted is None or offer is None:
            return plan
        if outcome.status != "applied":
            heard = outcome.error is not None and outcome.error.code != "DENIED"  # who may not write decides nothing
            return replace(plan, refused=tuple(refused(offer, admitted.ops, facts)) if heard else ())
        if offer.last:
            return replace(
                plan, recovered_until=offer.seq, traces=shared(offer.seq, facts, self.context.row_rules.stores)
            )
        return replace(plan, traces=verdict.recovered)

    def _again(self, client: ClientState, facts: Facts) -> WritePlan:
        mid = self.mutation.mid
        stored = facts.outcomes.get(mid)
        if stored is None:
            raise forked(f"mutation {mid} was confirmed and forgotten (confirmed up to {client.confirmed_mid})")
        if stored.digest != self.mutation.digest:
            raise forked(f"the hub has another mutation {mid}")
        return WritePlan(client=client, reply=replace(stored.outcome, mid=mid, duplicate=True))

    def _verdict(self, facts: Facts) -> _Verdict:
        mid = self.mutation.mid
        scope = "" if isinstance(self.admitted, Refusal) else self.admitted.body.scope
        try:
            if isinstance(self.admitted, Refusal):
                raise self.admitted
            if facts.decided is not None:  # a copy of the file has pushed it, under another name
                return _Verdict(replace(facts.decided.outcome, mid=mid))
            if facts.violation and not self._draws_anew(self.admitted, facts.again):
                raise Refusal("CONSTRAINT", facts.violation)
            return self._apply(self.admitted, facts)
        except Refusal as refused:
            conflicts = () if refused.conflict is None else (refused.conflict,)
            return _Verdict(Outcome(mid, "rejected", scope, error=refused.error, conflicts=conflicts))

    def _apply(self, admitted: CheckedMutation, facts: Facts) -> _Verdict:
        body, mid = admitted.body, self.mutation.mid
        if self.context.rules.scope_access(self.principal, body.scope) != "write":
            raise Refusal("DENIED", f"you may not write in scope {body.scope!r}")
        for op in admitted.ops:
            if not self.context.schema.store(op.store).replicate:
                raise Refusal("DENIED", not_replicated(op.store))
        self._check_dependencies(admitted, facts)
        written_ms = min(body.client_ms, facts.now_ms + CLOCK_AHEAD_MS)
        seen = Seen(facts.since, self.request.client_id, facts.scope.floor, written_ms)
        work = Workspace(facts.rows, self.context.schema.stores, self.view)
        conflicts: list[Conflict] = []
        recovered: tuple[RowKey, ...] = ()
        if body.recovers is not None:
            recovered = take_offer(body.recovers, admitted.ops, facts, work)
            if admitted.ops and not recovered and not work.is_changed:
                return _Verdict(Outcome(mid, "superseded", body.scope, facts.scope.head))
            if body.recovers.last and is_of_one_history(body.recovers, facts):
                for key in withdrawn(body.recovers.seq, facts, self.context.row_rules.stores):
                    work.put(key, None)
        for op in admitted.ops if body.recovers is None else ():
            key = (op.store, op.id)
            in_a_lost_history = counts(op) and key in facts.brought and body.base_epoch != facts.epoch
            judge = decide_doubtful if body.doubtful or facts.doubtful or in_a_lost_history else decide
            store = self.context.schema.store(op.store)
            verdict = judge(op, store, work.fact(key), work.image(key), seen, self.context.customs)
            check_drawn(store, op.id, work.fact(key), verdict.image)
            work.put(key, verdict.image)
            if verdict.conflict is not None:
                conflicts.append(verdict.conflict)
        stamps = self.context.hub_fields.stamps(facts, self.principal, offered=body.recovers is not None)
        work.set_fields(stamps)
        changes = work.changes(self.context.limits)
        status: OutcomeStatus = "merged" if conflicts else "applied"
        if not changes:
            unchanged = Outcome(mid, status, body.scope, facts.scope.head, conflicts=tuple(conflicts))
            return _Verdict(unchanged, recovered=recovered)
        transaction = next_transaction(
            facts.scope,
            changes,
            author=self.request.client_id,
            mid=mid,
            principal=self.principal.subject,
            written_ms=written_ms,
        )
        outcome = Outcome(mid, status, body.scope, transaction.seq, conflicts=tuple(conflicts))
        return _Verdict(outcome, transaction, recovered, stamps.counters)

    def _draws_anew(self, admitted: CheckedMutation, again: bool) -> bool:
        """Whether what is brought back may have a number that another row has by now, and takes the next one instead."""
        numbered = any(self.context.schema.stores[op.store].sets.numbers for op in admitted.ops)
        return admitted.body.recovers is not None and numbered and not again

    def _check_dependencies(self, admitted: CheckedMutation, facts: Facts) -> None:
        for op in admitted.ops:
            earlier = facts.outcomes.get(op.after_mid)
            if earlier is not None and earlier.outcome.status == "rejected":
                error = earlier.outcome.error
                root = error.info.get("root_mid", str(op.after_mid)) if error else str(op.after_mid)
                message = f"it builds on mutation {op.after_mid}, which was rejected"
                raise Refusal("DEPENDENCY_REJECTED", message, info={"root_mid": root})


def out_of_order(client: ClientState, mid: int) -> WritePlan:
    """Stop: there is a gap before this mutation."""
    expected = client.last_mid + 1
    message = f"mutation {expected} has to come next, got {mid}; send again from there"
    error = refusal("OUT_OF_ORDER", message, info={"expected": str(expected)})
    return WritePlan(client=client, reply=error, stop=True)


def too_new(client: ClientState, version: int, schema: Schema) -> WritePlan:
    """Stop: the hub has to be brought to the client's schema first."""
    message = f"written with schema version {version}, the hub has {schema.version}; it will be decided once the hub is upgraded"
    error = refusal("SCHEMA_TOO_NEW", message, info={"hub_version": str(schema.version)})
    return WritePlan(client=client, reply=error, stop=True)


async def push_decisions(
    context: DecisionContext, principal: Principal, request: PushRequest, key: bytes
) -> tuple[list[Decision], ErrorInfo | None]:
    """The decisions of a request, and the error that stops it behind the last of them; other tasks run in between.

    ``key`` is the hub's, by which it knows its own proofs.

    Raises:
        RemoteError: The batch is too large, or not even its first mutation can be trusted.
    """
    limits, mutations = context.limits, request.mutations
    size = sum(len(mutation.body) for mutation in mutations)
    if len(mutations) > limits.push_mutations or (size > limits.push_bytes and len(mutations) > 1):
        message = (
            f"{len(mutations)} mutations of {size} bytes; send at most {limits.push_mutations} and {limits.push_bytes}"
        )
        raise RemoteError(message, remote_code="TOO_LARGE")
    broken = broken_link(request.prev_digest, mutations)
    if broken == 0:
        raise RemoteError("the digest of the first mutation does not fit its bytes", remote_code="MALFORMED")
    error = None
    if broken is not None:
        mutations = mutations[:broken]
        error = refusal("MALFORMED", f"the digest of mutation {request.mutations[broken].mid} does not fit its bytes")
    decisions: list[Decision] = [] if mutations else [ConfirmDecision(principal, request)]
    previous, view = request.prev_digest, context.row_rules.view(principal)
    checked = 0
    for mutation in mutations:
        checked += MUTATION_BYTES + len(mutation.body)
        if checked > CHECKED_AT_ONCE_BYTES:
            await trio.lowlevel.checkpoint()
            checked = 0
        admitted: CheckedMutation | Refusal
        try:
            if len(mutation.body) > UNCOUNTED_BYTES:
                await _count(mutation)
            admitted = await admit(mutation.mid, mutation.body, context.schema, limits)
            check_offer(admitted, key)
        except Refusal as refused:
            admitted = refused
        decisions.append(PushDecision(context, principal, request, mutation, previous, admitted, view))
        previous = mutation.digest
    return decisions, error


async def _count(mutation: Mutation) -> None:
    """See that decoding a large mutation takes no longer than others may be kept waiting.

    Raises:
        Refusal: ``TOO_LARGE``.
    """
    survey = Survey()
    for _ in survey.turns(mutation.body):
        await trio.lowlevel.checkpoint()
    if survey.too_many:
        text = f"mutation {mutation.mid} holds more than {VALUES_MAX:,} values, or {CONTAINERS_MAX:,} lists and maps"
        raise Refusal("TOO_LARGE", text)
