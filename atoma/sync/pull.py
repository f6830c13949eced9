"""The pull lane: one per scope, one page in flight; each page is one local transaction."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from msgspec.structs import replace

from atoma.concurrency.backoff import Retries
from atoma.contracts.execution import Durability
from atoma.contracts.failures import info_from
from atoma.contracts.replica import ClientIdentity, Subscription
from atoma.contracts.shapes import marked
from atoma.contracts.sync import Cursor, Outcome, PullReply, SnapshotReply
from atoma.contracts.writeback import ConfirmedRow
from atoma.errors import ProtocolError, RemoteError, Resync
from atoma.ports.local import LocalTx
from atoma.sync.adopt import adopt_rows
from atoma.sync.failures import Course, HistoryMoved, course, history_moved
from atoma.sync.page import confirmed_rows
from atoma.sync.replica import BACKOFF, Replica
from atoma.sync.requests import PageRequests
from atoma.sync.session import SyncSession
from atoma.sync.staging import LivePage, SnapshotPage, TailPage

POLL_STREAMING_S = 60.0
POLL_SPREAD = 0.2
POLL_ALONE_S = 5.0
APPLY_TARGET_S = 0.05
"""Pages grow and shrink so that applying one takes about this long."""
MIN_CHANGES = 500
PACE_S = 0.25
SHORT_CHANGES = 32
SHORT_BYTES = 64 * 1024
"""A page of so few changes and bytes is applied where the lane runs: a thread would keep who waits for it longer."""


class PullLane:
    """The lane that brings one scope's base to the hub's head and keeps it there.

    Args:
        replica: The client's side.
        session: The connection.
        scope: The scope.
        patient: Wait and try again after a failure that concerns this scope alone, instead of raising it.
    """

    def __init__(self, replica: Replica, session: SyncSession, scope: str, *, patient: bool = True) -> None:
        self._replica = replica
        self._session = session
        self._scope = scope
        self._retries = Retries(BACKOFF, replica.environment.random)
        self._pages = PageRequests(
            session.service, scope, session.identity.client_id, session.limits, session.version_told
        )
        self._schedule = replica.schedule(scope)
        self._patient = patient
        self._again_s = 0.0
        self._following = False
        self._shapes: tuple[bytes, ...] = ()
        self._proof = b""

    async def run(self) -> None:
        """Pull until cancelled: at start, when poked by a hint or an acceptance, and on a timer."""
        try:
            while True:
                await self.catch_up()
                if self._session.pushing:
                    await trio.sleep(PACE_S)  # every request of a long push would fetch a small page of its own
                await self._schedule.wake.wait(self._poll_interval())
        finally:
            if self._scope not in self._replica.scopes:  # it was dropped, and keeps nothing waiting
                self._goes_on()

    def _goes_on(self) -> None:
        if self._session.goes_on(self._scope):
            self._replica.board.show_online()

    async def catch_up(self) -> None:
        """Pull until the scope is live and the log goes no further.

        Raises:
            TransportError: The connection broke; the next session continues where this one was.
            RemoteError: The hub refuses for a reason that trying again does not change.
        """
        self._schedule.begun += 1
        number = self._schedule.begun
        while not await self._step_or_wait():
            pass
        self._schedule.done = number
        self._replica.bell.ring()

    def _poll_interval(self) -> float:
        if not self._session.streaming:
            return POLL_ALONE_S
        return POLL_STREAMING_S * self._replica.environment.random.uniform(1 - POLL_SPREAD, 1 + POLL_SPREAD)

    async def _step_or_wait(self) -> bool:
        """One step; a failure that a retry or a snapshot corrects is handled here."""
        try:
            async with self._session.pulling:
                caught_up = await self._step()
        except RemoteError as error:
            await self._mend(error)
            return False
        if self._again_s:
            await trio.sleep(self._again_s)
            self._again_s = 0.0
        self._session.progressed = True
        self._goes_on()
        if self._replica.progress(self._scope).error is not None:
            self._replica.show_scope_error(self._scope, None)
        if caught_up:
            self._retries.reset()
        return caught_up

    async def _mend(self, error: RemoteError) -> None:
        """Take a snapshot, or show the failure and wait; raise what concerns the whole session."""
        doing = course("pull", error)
        if history_moved(error) and self._session.agrees(self._scope) and self._following:
            raise HistoryMoved(f"scope {self._scope!r}: {error}") from error
        if doing is Course.SNAPSHOT:
            first = self._retries.failures == 0
            delay = self._retries.fail(error.retry_after_s)
            await self._replica.begin_snapshot(self._scope)
            self._replica.show_scope_error(self._scope, info_from(Resync(error.remote_code)))
            await trio.sleep(0.0 if first else delay)
            return
        if not self._patient or doing is Course.SLOWLY:
            raise error
        info = info_from(error)
        self._replica.show_scope_error(self._scope, info)
        alone = doing is Course.ASIDE
        delay = self._retries.slow() if alone else self._retries.fail(error.retry_after_s)
        if not alone:
            self._session.failing.add(self._scope)
            due = self._replica.due_ms(delay)
            self._replica.board.show_waiting(
                info, reason=str(error), attempt=self._retries.failures, next_attempt_ms=due
            )
        else:
            self._goes_on()  # the hub is there, and refuses this scope alone
        await trio.sleep(delay)
        if error.remote_code == "SHAPE_UNKNOWN":  # the hub was exchanged; at the opening it says what it gives out
            self._replica.replicated.ask_anew([self._scope])

    async def _step(self) -> bool:
        """One request and its transaction; True when the scope is at the head it was told of."""
        subscription, identity = await self._replica.database.inspect(self._position)
        confirmed = identity.confirmed_mid
        self._following = subscription.state == "live"
        self._proof = subscription.proof
        self._shapes = self._session.shapes.get(self._scope, ())
        if self._is_of_others(subscription):
            await self._replica.begin_snapshot(self._scope)
            return False
        match subscription.state:
            case "new" if self._scope not in self._replica.scopes:
                return True  # it was dropped
            case "new":
                await self._begin()
                return False
            case "snapshot":
                await self._stage_page(subscription)
                return False
            case "tail":
                cursor = subscription.stage_cursor or subscription.cursor
                return await self._take(cursor, await self._pages.pull(cursor, confirmed, self._shapes), staged=True)
            case "live":
                cursor = subscription.cursor
                return await self._take(cursor, await self._pages.pull(cursor, confirmed, self._shapes))

    def _is_of_others(self, subscription: Subscription) -> bool:
        """Whether what is here, or staged, is of another part of the scope than is asked for now."""
        mark = self._replica.replicated.note(self._shapes)
        match subscription.state:
            case "new":
                return False
            case "live":
                return subscription.cursor.seq > 0 and marked(subscription.cursor.view) != mark
            case "snapshot" | "tail":
                return subscription.stage_cursor is not None and marked(subscription.stage_cursor.view) != mark

    async def _take(self, cursor: Cursor, page: PullReply, *, staged: bool = False) -> bool:
        """Apply ``page`` if it is the answer to ``cursor``; True when there is no more."""
        if (page.scope, page.start) != (self._scope, cursor):
            self._again_s = self._retries.fail()  # a late or repeated reply: ask again, not at once
            return False
        if page.more and page.end == page.start:
            raise ProtocolError("the hub sent a page that goes nowhere but says that there is more")
        news = page.end != page.start or page.stores or page.outcomes or page.proof != self._proof
        if news or staged:
            await self._commit(page, staged=staged)
        else:
            self._replica.show_head(self._scope, page.head)
        return not page.more

    async def _begin(self) -> None:
        """First sync: queue what was here before, then take a snapshot, or the log from 0 if the hub has nothing."""
        await adopt_rows(self._replica, self._scope)
        await self._replica.begin_snapshot(self._scope, empty=self._session.heads.get(self._scope) == 0)

    def _position(self, tx: LocalTx) -> tuple[Subscription, ClientIdentity]:
        return tx.scopes.read(self._scope), tx.outbox.identity()

    async def _stage_page(self, subscription: Subscription) -> None:
        token = subscription.token
        try:
            page = await self._pages.snapshot(token, self._shapes)
        except RemoteError as error:
            if not token or course("snapshot", error) is not Course.ASIDE:
                raise
            # a token the hub no longer takes (it may have another key): begin anew, which tells what else is wrong
            await self._replica.begin_snapshot(self._scope)
            return
        await self._commit_snapshot(token, page)

    async def _commit_snapshot(self, token: bytes, page: SnapshotReply) -> None:
        await self._replica.change(SnapshotPage(token, page, self._replica.stores), durability="normal")

    async def _commit(self, page: PullReply, *, staged: bool = False) -> None:
        """Apply ``page`` in its one transaction; what the cursor has passed already changes nothing."""
        verified, stores = self._session.verified_mid, self._replica.stores
        change = TailPage(page, stores, verified) if staged else LivePage(replace(page, stores=()), verified)
        rows = () if staged else await confirmed_rows(self._replica.schema, page, stores)
        began = self._replica.environment.clock()
        pending, verdicts = await self._replica.database.inspect(
            lambda tx: (_has_pending(tx), by_key(tx, page.outcomes))
        )
        settles = pending or bool(page.outcomes)
        # a page that settles nothing can be pulled again after a power cut, so it is not worth an fsync (ADR 0013)
        durability: Durability | None = None if settles else "normal"
        work = await self._replica.change(
            change,
            rows=rows,
            verdicts=verdicts,
            durability=durability,
            short=not staged and _is_short(rows),
        )
        self._resize(self._replica.environment.clock() - began)
        if work is not None:
            self._replica.settled(work)
        self._replica.show_head(self._scope, page.head)

    def _resize(self, seconds: float) -> None:
        """Fewer changes per page when applying takes long, more when it does not: writers wait behind a page."""
        if seconds > APPLY_TARGET_S:
            self._pages.max_changes = max(MIN_CHANGES, self._pages.max_changes // 2)
        else:
            self._pages.max_changes = min(self._session.limits.page_changes, self._pages.max_changes + MIN_CHANGES)


def _has_pending(tx: LocalTx) -> bool:
    """Whether a page could settle something, also one that was asked for when there was nothing."""
    identity = tx.outbox.identity()
    return identity.confirmed_mid < identity.next_mid - 1


def by_key(tx: LocalTx, outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    """Outcomes of mutations that are still pending, by idempotency key."""
    if not outcomes:
        return {}
    keys = tx.outbox.keys_of([outcome.mid for outcome in outcomes])
    return {keys[outcome.mid]: outcome for outcome in outcomes if outcome.mid in keys}


def _is_short(rows: Sequence[ConfirmedRow]) -> bool:
    """Whether writing ``rows`` keeps the loop no longer than a change of threads would keep who waits."""
    if len(rows) > SHORT_CHANGES:
        return False
    values = [value for row in rows if row.image is not None for value in row.image.values()]
    return sum([len(value) for value in values if isinstance(value, (str, bytes))]) <= SHORT_BYTES
