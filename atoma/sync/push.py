"""The push lane: the outbox to the hub, strictly in order, one request in flight."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import trio
from msgspec.structs import replace

from atoma.concurrency.backoff import Retries
from atoma.contracts.failures import info_from, retry_after_s
from atoma.contracts.mutations import PendingMutation
from atoma.contracts.sync import PROTOCOL_VERSION, Mutation, PushReply, PushRequest
from atoma.contracts.values import ErrorInfo, remote_error
from atoma.errors import AtomaError, ProtocolError, RemoteError, SyncError, TransportError
from atoma.ports.local import LocalTx
from atoma.sync.failures import Course, HistoryMoved, HubLostData, course
from atoma.sync.outbox import digest_before, note_sent, takes_every_edit, unspeakable
from atoma.sync.oversize import LeftOut, changes_something
from atoma.sync.replica import BACKOFF, Replica, bounded
from atoma.sync.requests import RequestSize
from atoma.sync.session import PUSH, SyncSession
from atoma.sync.settle import Settlement
from atoma.sync.staging import AttemptFailed, Opened, Replied

SCAN_S = 5.0
"""The outbox is looked at this often, in seconds, even if no bell rang."""
STALL_FAILURES = 20
"""After so many failures in a row the session ends; the next one tries again."""


class PushStalled(SyncError):
    """The hub keeps failing to decide a mutation; the outbox is kept and sent again."""

    code = "PUSH_STALLED"


class PushLane:
    """The lane that sends what the outbox holds; what it sends is read from the database, never from events."""

    def __init__(self, replica: Replica, session: SyncSession) -> None:
        self._replica = replica
        self._session = session
        self._retries = Retries(BACKOFF, replica.environment.random)
        self._size = RequestSize("push", session.limits.push_mutations)

    async def run(self) -> None:
        """Push until cancelled: at start, on a wake-up, on a timer."""
        state = self._replica.push_state
        while True:
            await self.drain()
            state.idle = takes_every_edit(self._session.proto)
            try:
                await self._replica.push_wake.wait(SCAN_S)
            finally:
                state.idle = False

    async def drain(self) -> None:
        """Push until nothing is queued, but what the hub has decided already.

        Raises:
            TransportError: The connection broke; what was in flight is sent again and answered the same.
            RemoteError: The hub refuses for a reason that trying again does not change.
        """
        try:
            while True:
                sending = self._sending()
                batch = await self._replica.database.inspect(sending.batch_sent_before)
                if batch is None:
                    batch = await self._replica.change(sending)
                if not batch.mutations:
                    self._goes_on()
                    self._replica.poke_pull(batch.decided)
                    return
                self._session.pushing = len(batch.mutations) >= self._size.now
                await self._replica.database.flush()  # or its numbers could be given out again, for something else
                await self._push(batch)
        finally:
            self._session.pushing = False

    def _sending(self) -> Sending:
        session = self._session
        return Sending(
            session.verified_mid,
            session.verified_digest,
            self._size.now,
            session.limits.push_bytes,
            session.proto,
        )

    async def _push(self, batch: MutationBatch) -> None:
        session = self._session
        request = PushRequest(
            client_id=session.identity.client_id,
            incarnation=session.identity.incarnation,
            mutations=tuple(Mutation(item.mid, item.body, item.digest) for item in batch.mutations),
            prev_digest=batch.previous,
            confirmed_mid=batch.confirmed_mid,
            schema_version=session.version_told,
        )
        mids = [item.mid for item in batch.mutations]
        self._replica.database.show_in_flight(mids, in_flight=True)
        try:
            with bounded("push"):
                reply = await session.service.push(request)
            work = await self._take(batch.mutations, reply)
        except (RemoteError, TransportError) as error:
            await self._failed(batch, error)
            return
        finally:
            self._replica.database.show_in_flight(mids, in_flight=False)
        if reply.outcomes:
            session.progressed = True
            self._retries.reset()
            if reply.error is None:
                self._goes_on()
        self._replica.settled(work)
        self._replica.bell.ring()
        if reply.error is not None:
            await self._stopped(batch, reply, reply.error)
        elif not reply.outcomes:
            raise ProtocolError("the hub answered a push with neither outcomes nor an error")

    def _goes_on(self) -> None:
        """Nothing keeps the outbox waiting any more."""
        if self._session.goes_on(PUSH):
            self._replica.board.show_online()

    async def _take(self, batch: Sequence[PendingMutation], reply: PushReply) -> Settlement:
        """Settle the outcomes in one transaction and remember how far both sides agree."""
        sent = {item.mid: item for item in batch}
        outcomes = [outcome for outcome in reply.outcomes if outcome.mid in sent]
        for outcome in outcomes:  # first of all, so that a page that is under way can settle them as well
            if outcome.mid > self._session.verified_mid:
                self._session.verified_mid = outcome.mid
                self._session.verified_digest = sent[outcome.mid].digest
        verdicts = {sent[outcome.mid].idem: outcome for outcome in outcomes}
        return await self._replica.change(Replied(self._replica.replicated.apart), verdicts=verdicts)

    async def _stopped(self, batch: MutationBatch, reply: PushReply, info: ErrorInfo) -> None:
        """The hub stopped within the batch; what has no outcome stays queued."""
        decided = {outcome.mid for outcome in reply.outcomes}
        if info.code == "OUT_OF_ORDER" and decided:
            return
        await self._failed(batch.behind(decided), remote_error(info))

    async def _failed(self, batch: MutationBatch, error: AtomaError) -> None:
        """Note the failure with a visible next attempt, then wait for it; raise what ends the session."""
        doing = course("push", error)
        if self._size.shrink(error, len(batch.mutations)):
            return
        if doing is Course.SMALLER and changes_something(batch.mutations[0]):
            await self._leave_out(batch, error)
            return
        self._session.failing.add(PUSH)
        delay = self._retries.fail(retry_after_s(error))
        info = info_from(error)
        due = self._replica.due_ms(delay)
        mids = [item.mid for item in batch.mutations]
        await self._replica.change(AttemptFailed(mids, due, f"{info.code}: {info.message}"))
        if doing not in (Course.AGAIN, Course.SMALLER):
            raise error
        self._replica.board.show_waiting(info, reason=str(error), attempt=self._retries.failures, next_attempt_ms=due)
        if self._retries.failures >= STALL_FAILURES:
            raise PushStalled(f"{self._retries.failures} pushes failed in a row; the last one with {error}") from error
        await trio.sleep(delay)

    async def _leave_out(self, batch: MutationBatch, error: AtomaError) -> None:
        """Put a mutation that is too large by itself into the inbox, once it is sure that the hub has not decided it.

        Raises:
            HistoryMoved: It has: it was the answer that was too large, and the next page brings the outcome.
        """
        (mutation,) = batch.mutations
        with bounded("open"):
            reply = await self._session.service.open(replace(self._session.request, scopes=(), places=()))
        if reply.last_mid != mutation.mid - 1:
            raise HistoryMoved(f"the hub has decided mutations up to {reply.last_mid}, and answers: {error}") from error
        left_out = LeftOut(mutation.mid, mutation.digest, batch.previous, info_from(error))
        self._replica.settled(await self._replica.change(left_out))
        self._size = RequestSize("push", self._session.limits.push_mutations)
        self._replica.bell.ring()


@dataclass(frozen=True, slots=True)
class MutationBatch:
    """Mutations to send together, without a gap.

    Attributes:
        mutations: In ``mid`` order; empty when there is nothing to send.
        previous: Digest chain before the first.
        confirmed_mid: Every mutation up to this one has left the outbox.
        decided: Scopes of queued mutations that the hub has decided already; a pull brings their outcomes.
    """

    mutations: Sequence[PendingMutation]
    previous: bytes
    confirmed_mid: int
    decided: tuple[str, ...] = ()

    def behind(self, decided: Collection[int]) -> MutationBatch:
        """What of it comes behind what is ``decided``; all of it where that is all."""
        rest = [item for item in self.mutations if item.mid not in decided]
        if not rest or len(rest) == len(self.mutations):
            return self
        return dataclasses.replace(self, mutations=rest, previous=self.mutations[-len(rest) - 1].digest)


@dataclass(frozen=True, slots=True)
class Sending:
    """The next mutations are about to be sent; from then on their numbers and bytes are fixed.

    Attributes:
        verified_mid: Last mutation the hub has decided.
        verified_digest: Digest chain after it.
        limit: At most so many mutations.
        max_bytes: At most so many bytes of bodies, but at least one mutation.
        proto: The version of the protocol that the hub speaks.
    """

    verified_mid: int
    verified_digest: bytes
    limit: int
    max_bytes: int
    proto: int = PROTOCOL_VERSION

    def batch(self, tx: LocalTx) -> MutationBatch:
        """What is next; see :func:`next_batch`.

        Raises:
            RemoteError: ``PROTO_UNSUPPORTED``; see :func:`unspeakable`.
        """
        refused = unspeakable(tx, self.verified_mid, self.proto)
        if refused is not None:
            raise refused
        return next_batch(tx, self.verified_mid, self.verified_digest, limit=self.limit, max_bytes=self.max_bytes)

    def batch_sent_before(self, tx: LocalTx) -> MutationBatch | None:
        """What is next, None while something waits that was never sent: somebody may take it back until that is noted."""
        identity = tx.outbox.identity()
        return self.batch(tx) if identity.is_noted else None

    def stage(self, at: Opened) -> MutationBatch:
        """Note how far the outbox will have been sent; what is to be sent."""
        batch = self.batch(at.tx)
        if batch.mutations:
            note_sent(at.tx, batch.mutations[-1])
        return batch


def next_batch(tx: LocalTx, verified_mid: int, verified_digest: bytes, *, limit: int, max_bytes: int) -> MutationBatch:
    """The next mutations to send.

    Usually the oldest queued ones. Those that the hub has decided before (the reply was lost) are sent again for their
    stored outcomes, unless the digest before them is forgotten; then the next page brings the outcomes. When the hub
    has forgotten mutations that it had acked (it was restored), they are sent again, whatever their status.

    Args:
        tx: A transaction, which is only read.
        verified_mid: Last mutation the hub has decided.
        verified_digest: Digest chain after it.
        limit: At most so many mutations.
        max_bytes: At most so many bytes of bodies, but at least one mutation.

    Raises:
        HubLostData: A mutation the hub needs first has left the outbox.
    """
    mutations, previous, decided = _next(tx, verified_mid, verified_digest, limit, max_bytes)
    return MutationBatch(mutations, previous, tx.outbox.identity().confirmed_mid, decided)


def _next(
    tx: LocalTx, verified_mid: int, verified_digest: bytes, limit: int, max_bytes: int
) -> tuple[Sequence[PendingMutation], bytes, tuple[str, ...]]:
    queued = tx.outbox.queued(limit=limit, max_bytes=max_bytes)
    following = verified_mid + 1
    if queued and queued[0].mid <= verified_mid:
        previous = digest_before(tx, queued[0].mid)
        if previous is not None:
            return _contiguous(queued), previous, ()
        decided = tuple(dict.fromkeys(item.scope for item in queued if item.mid <= verified_mid))
        return _from(tx, following, limit, max_bytes), verified_digest, decided
    if queued and queued[0].mid == following:
        return _contiguous(queued), verified_digest, ()
    return _from(tx, following, limit, max_bytes), verified_digest, ()


def _contiguous(queued: Sequence[PendingMutation]) -> Sequence[PendingMutation]:
    count = 1
    while count < len(queued) and queued[count].mid == queued[0].mid + count:
        count += 1
    return queued[:count]


def _from(tx: LocalTx, following: int, limit: int, max_bytes: int) -> list[PendingMutation]:
    """What lies in the outbox from ``following`` on, which the hub needs next; nothing when no such number was given out."""
    mid = following
    found: list[PendingMutation] = []
    size = 0
    while len(found) < limit:
        pending = tx.outbox.by_mid(mid)
        if pending is None or (found and size + len(pending.body) > max_bytes):
            break
        found.append(pending)
        size += len(pending.body)
        mid += 1
    if not found and following < tx.outbox.identity().next_mid:
        raise HubLostData(
            f"mutation {following} has left the outbox, but the hub has decided mutations up to {following - 1} only; "
            "the outbox is kept"
        )
    return found
