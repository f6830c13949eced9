"""``open_hub``: the one authority that decides writes and orders them."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import get_args

from atoma.contracts.checks import is_a
from atoma.contracts.codec import encode
from atoma.contracts.events import HubEvent
from atoma.contracts.sync import DevicePolicy, Limits
from atoma.contracts.understood import Understood, understood_with
from atoma.errors import ConfigurationError
from atoma.hub.auth import AllowLoopback
from atoma.hub.custom import CustomRule, CustomRules
from atoma.hub.intake import Intake
from atoma.hub.leftovers import take_back
from atoma.hub.presence import PresenceLimits, Rooms
from atoma.hub.presence_sharing import PresenceSharing
from atoma.hub.purging import ROWS_AT_ONCE, due, hidden_before, purge_decisions
from atoma.hub.pushing import DAY_MS, DecisionContext
from atoma.hub.reading import ReadBudget, Readers
from atoma.hub.recovery import WithdrawDecision
from atoma.hub.rules import EveryScope, RowRule, RowRules, Rules
from atoma.hub.service import HubCore, HubService
from atoma.hub.setting import NO_HUB_FIELDS, HubField, HubFields
from atoma.hub.verifying import Reverification
from atoma.ports.environment import Environment
from atoma.ports.hub import ClientState, CompactReport, EndedEpoch, HubIdentity, HubStore, Permission
from atoma.ports.hub_queries import Fence, ReadAllowance
from atoma.ports.intake import TakesLeftWrites
from atoma.ports.loops import lifetime
from atoma.ports.presence import CarriesNotices
from atoma.ports.service import AdmitsLoopback, Peer, Principal, TokenVerifier
from atoma.ports.sessions import SessionInfo, Sessions
from atoma.ports.tasks import open_tasks
from atoma.query.related import check_relations
from atoma.query.shapes import Shapes
from atoma.schema.schema import Schema

KEEP_TRANSACTIONS = 100_000
KEEP_DAYS = 30
CLIENT_DAYS = 400
PURGE_S = 60.0
"""How long it may take to look for rows that are to be purged."""
FORMS_BYTES = 32 * 1024
"""Most bytes of column types in a greeting, about 1,600 columns: clients take 64 KiB before they know who greets."""

_log = logging.getLogger("atoma.hub")


class Hub:
    """A running hub; a ``ServiceHost`` for any transport's serving side. Made by :func:`open_hub`."""

    __slots__ = ("_core", "_guard", "_registry", "_understood", "_verifier")

    def __init__(self, core: HubCore, verifier: TokenVerifier) -> None:
        self._core = core
        self._verifier = verifier
        self._guard = core.guard
        self._registry = Sessions(core.environment.wall_ms)
        self._understood = understood_with(
            core.readers.budget.bounds, _greeted_forms(core.context.schema), core.database.unknown_functions
        )

    def __repr__(self) -> str:
        return f"Hub({self.identity.hub_id.hex()})"

    @property
    def identity(self) -> HubIdentity:
        """Who the hub is."""
        return self._core.database.identity

    @property
    def schema(self) -> Schema:
        """The declared stores."""
        return self._core.context.schema

    @property
    def limits(self) -> Limits:
        """Bounds that clients are held to."""
        return self._core.context.limits

    @property
    def understood(self) -> Understood:
        """See :class:`atoma.ports.TellsUnderstood`."""
        return self._understood

    @property
    def calls(self) -> int:
        """Calls under way, over every transport."""
        return self._core.calls

    @property
    def admits_loopback(self) -> bool:
        """See :class:`atoma.ports.AdmitsLoopback`."""
        return isinstance(self._verifier, AdmitsLoopback) and self._verifier.admits_loopback

    @property
    def registry(self) -> Sessions:
        """See :class:`atoma.ports.TracksSessions`; for transports. A program asks :meth:`sessions`."""
        return self._registry

    def sessions(self) -> tuple[SessionInfo, ...]:
        """Who is connected, over every transport, oldest first.

        A session is a token that is in use on a connection. A client in memory or over WebSocket has one; over gRPC and HTTP,
        where every call brings its token, it has one on each of its connections.
        """
        self._guard.check()
        return self._registry.show()

    async def end(self, subject: str, *, reason: str = "the hub has ended this session: connect again") -> int:
        """End every session of ``subject`` now, on every transport: calls, streams and whatever waits.

        Their clients get ``SESSION_ENDED`` and connect again, and the verifier decides anew: so revoke the token first.
        What a call had done is done, and what was not answered is asked for again under the same key; nothing is lost.

        Args:
            subject: As the verifier names it in ``Principal``.
            reason: What clients are shown.

        Returns:
            How many sessions there were. None of them does anything any more when this returns; it waits at most two seconds
            for clients that do not take their goodbye. Cancelled, the sessions are ended all the same.

        Raises:
            ConfigurationError: ``subject`` or ``reason`` is not text, or is empty.
        """
        self._guard.check()
        for name, text in (("subject", subject), ("reason", reason)):
            if not is_a(text, str) or not text:
                raise ConfigurationError(f"end(): {name} is a text, and not empty, not {text!r}")
        return await self._registry.end(subject, reason)

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        """Who ``token`` belongs to.

        Raises:
            AuthenticationError: The token is missing, wrong or expired.
        """
        return await self._verifier.verify(token, peer)

    def service(self, principal: Principal) -> HubService:
        """The hub as ``principal`` may use it; cheap, one per connection."""
        return HubService(self._core, principal)

    async def compact(
        self,
        *,
        keep: int = KEEP_TRANSACTIONS,
        keep_days: float = KEEP_DAYS,
        client_days: float = CLIENT_DAYS,
        force: bool = False,
    ) -> CompactReport:
        """Forget old history; clients that are further behind take a snapshot and lose nothing they wrote.

        Rows that were deleted softly longer ago than their store keeps them (``soft_delete=timedelta(…)``) are purged.

        Args:
            keep: Transactions of log to keep per scope.
            keep_days: Answers of direct writes and verdicts on mutations younger than this stay. A device whose file was
                restored or copied finds out from its verdicts what became of its pending writes.
            client_days: Clients that were here within that time stay. One that is forgotten begins anew when it comes
                back, and gets that answer.
            force: Forget also where all answers, or all clients, would go, and the newest is days old.

        Returns:
            What was removed.

        Raises:
            ClockAhead: They would, as when this machine's clock is far ahead. Nothing was removed: look at the clock, and
                pass ``force=True`` when it is right, and nobody was here for that long.
            StoreError: The engine failed; what was removed until then is removed.

        Cancelled, it stops between two batches.
        """
        self._guard.check()
        report = await self._core.database.compact(
            keep=max(0, keep), keep_ms=int(keep_days * DAY_MS), clients_ms=int(client_days * DAY_MS), force=force
        )
        return replace(report, purged=await self._purge())

    async def _purge(self) -> int:
        """Delete for good what stores no longer keep of what was deleted softly; how many rows."""
        core, purged = self._core, 0
        schema = core.context.schema
        allowance = ReadAllowance(PURGE_S, lambda _: None)
        for store, before in due(schema, core.environment.wall_ms()):
            query, fences = hidden_before(store, before, schema), {store.name: Fence(None)}
            bounds = {"max_bytes": core.context.limits.page_bytes, "max_rows": ROWS_AT_ONCE}
            while rows := (await core.database.query(query, fences, allowance=allowance, **bounds)).rows:
                plans = await core.database.run(list(purge_decisions(store, rows, before)), core.committed)
                gone = sum(len(plan.transaction.changes) for plan in plans if plan.transaction is not None)
                purged += gone
                if not gone:  # they were all restored meanwhile
                    break
        return purged

    async def new_epoch(self, *, devices: DevicePolicy = "offer") -> HubIdentity:
        """Declare that history may have been cut, after a restore or an edit by hand.

        A client that has seen nothing of what was lost goes on; every other one is repaired. Call it before the first
        client is served: what is decided until then counts as part of the history that was.

        Args:
            devices: What devices do with what they have seen of the lost part. ``offer``: they bring it back, and
                nothing that was written since is overwritten. ``ask``: they keep it until their users offer it.
                ``forget``: the hub went back on purpose, and they must not bring anything back; what it was stays
                listed on the device.
        """
        self._guard.check()
        if devices not in get_args(DevicePolicy):
            raise ConfigurationError(f"new_epoch(): devices is {', '.join(get_args(DevicePolicy))}, not {devices!r}")
        return await self._core.database.renew_epoch(devices)

    async def epochs(self) -> Sequence[EndedEpoch]:
        """Every epoch that has ended, oldest first: what restores there were, and what devices do about them."""
        self._guard.check()
        return await self._core.database.epochs()

    async def absent(self, epoch: bytes) -> Sequence[ClientState]:
        """Devices that have not come back since an epoch ended, the one that was away longest first; a thousand at most.

        What they have seen of the lost part may still come. A device that has never written is not known to the hub, and
        one that was repaired after the backup calls under a later name: it stays listed under its earlier one.

        Args:
            epoch: The epoch, from :meth:`epochs`; of an unknown one there is nobody.
        """
        self._guard.check()
        return await self._core.database.absent(epoch)

    async def allow_deletes(self, epoch: bytes) -> None:
        """Let devices delete again what they had seen deleted in a part that the hub has lost.

        A hub that finds out by itself that its file was restored lets devices bring rows back, but not delete rows that it
        still has: it may have been restored for their sake. Devices keep those deletions and offer them at their next
        opening once they are allowed. Rows that one device has brought up to date and another one had seen deleted go now.

        Args:
            epoch: The epoch of which a part was lost, from :meth:`epochs`.

        Raises:
            ConfigurationError: No such epoch has ended here.
        """
        if self._core.closed:  # it is open for upkeep, without the row rules
            await self._permit("allow_deletes", epoch, "deletes_put_off")
        else:
            await self._permit("allow_deletes", epoch, "deletes")
            await _withdraw(self._core)

    async def allow_offers(self, epoch: bytes) -> None:
        """Let devices bring back by themselves what the hub has lost, after ``devices="ask"`` or ``"forget"``.

        A device learns it at its next opening and then offers what waits in its ``lost``, unless its own word is a more
        careful one.

        Args:
            epoch: The epoch of which a part was lost, from :meth:`epochs`.

        Raises:
            ConfigurationError: No such epoch has ended here.
        """
        await self._permit("allow_offers", epoch, "offers")

    async def accept_unproven(self, epoch: bytes) -> None:
        """Take what devices offer without a proof that the hub was ever there, as files from before proofs do.

        Until then such rows wait in the ``lost`` of their devices, with the reason ``unproven``, and go out at the next
        opening after it. They count less than everything that is proved: they fill in what nobody else has brought, and where
        two devices differ, the second one's row goes to its inbox.

        Args:
            epoch: The epoch of which a part was lost, from :meth:`epochs`.

        Raises:
            ConfigurationError: No such epoch has ended here.
        """
        await self._permit("accept_unproven", epoch, "unproven")

    async def _permit(self, call: str, epoch: bytes, what: Permission) -> None:
        self._guard.check()
        if not await self._core.database.permit(epoch, what):
            raise ConfigurationError(f"{call}(): no epoch {epoch.hex()} has ended at this hub")


async def _withdraw(core: HubCore) -> None:
    """Carry out the deletions that were held back until they were allowed."""
    parts = core.context.row_rules.stores
    decisions = [WithdrawDecision(scope, lost, parts) for scope, lost in await core.database.traced()]
    if decisions:
        await core.database.run(decisions, core.committed)


async def _catch_up(core: HubCore) -> None:
    """Carry out what an operator has allowed while no hub ran."""
    put_off = await core.database.put_off()
    if put_off:
        await _withdraw(core)
    for epoch in put_off:
        await core.database.permit(epoch, "deletes")


@lifetime
async def open_hub(
    schema: Schema,
    store: HubStore,
    *,
    verifier: TokenVerifier | None = None,
    rules: Rules | None = None,
    row_rules: Mapping[str, RowRule] | None = None,
    hub_fields: Mapping[str, Mapping[str, HubField]] | None = None,
    conflicts: Mapping[str, Mapping[str, CustomRule]] | None = None,
    deleted_rows: Callable[[Principal], bool] | None = None,
    environment: Environment | None = None,
    limits: Limits | None = None,
    reads: ReadBudget | None = None,
    presence: PresenceLimits | None = None,
    verify_again_s: float | None = None,
    listener: Callable[[HubEvent], None] | None = None,
) -> AsyncGenerator[Hub]:
    """Open a hub; leaving the block finishes what is under way and closes the store.

    Args:
        schema: The declared stores.
        store: Where everything is kept, for example ``SQLiteHubStore("hub.db")``.
        verifier: Decides who a token belongs to; there is no hub without one.
        rules: Decides what a principal may do; without rules every authenticated principal may read and write every
            scope.
        row_rules: For each store whose rows are not for everybody who may read their scope, by name, what tells them apart:
            ``{"notes": lambda caller: col("owner") == caller.subject}``. It holds for queries, writes and sync alike: a device
            has the rows that its principal may see, and takes a snapshot when that changes.
        hub_fields: By store and field, what sets the fields that stores declare in ``hub_fields``; see :mod:`atoma.hub.setting`.
        conflicts: By store and field, what settles the fields that stores declare as ``custom`` in ``merge``; see
            :mod:`atoma.hub.custom`.
        deleted_rows: Whether a principal may ask for rows that were deleted softly, of those that it may read; None lets nobody.
        environment: Clock, ids, executor; None takes the real ones.
        limits: Bounds to hold clients to; None takes the defaults.
        reads: What the queries and snapshots of one principal may take; None takes the defaults.
        presence: Bounds of who may be present, and how often they may say something else; None takes the defaults.
        verify_again_s: Ask the verifier again about every token that has been in use for so many seconds; a token that it
            refuses then ends its sessions, and so does a verifier that has not answered for twice as long. None asks once
            for each session.
        listener: Notified of every call once it has ended, and when a client knows more than the hub (``ClientAhead``): then
            the hub was restored, and ``new_epoch()`` was not called. It must not block. ``atoma.telemetry.hub_listener()`` makes
            spans and metrics of them.

    Raises:
        ConfigurationError: There is no verifier, something else was passed in the place of a part, ``verify_again_s`` is not
            a positive number, or ``row_rules``, ``hub_fields``, ``conflicts`` or ``deleted_rows`` do not fit.
        StoreBusy: Another hub holds the store.
        MigrationError: The store is newer than the code, or a change of the schema is not additive.
        StoreCorrupt: The store is damaged, or is none of a hub.
    """
    verifier = _given(verifier)
    _check_parts(schema, store, verifier, rules, deleted_rows)
    _check_period(verify_again_s)
    schema = _at_hub(schema)
    fields, customs = HubFields(schema.stores, hub_fields or {}), CustomRules(schema.stores, conflicts or {})
    of_rows, readers, rooms = RowRules(schema, row_rules or {}), Readers(reads or ReadBudget()), _rooms(presence)
    context = DecisionContext(schema, rules or EveryScope(), limits or Limits(), of_rows, fields, customs, deleted_rows)
    async with _open_core(store, context, environment or Environment(), readers, rooms, listener) as core:
        await _catch_up(core)
        hub = Hub(core, verifier)
        async with core.database.follow(core.follow, core.hints.scopes), open_tasks() as nursery:
            for task in _tasks(core, hub, verify_again_s):
                nursery.start_soon(task)
            try:
                yield hub
            finally:
                core.closed = True
                nursery.cancel_scope.cancel()


@lifetime
async def open_for_upkeep(
    schema: Schema, store: HubStore, environment: Environment | None = None
) -> AsyncGenerator[Hub]:
    """Open a hub for what its operator does to it: ``compact``, ``new_epoch``, ``epochs`` and what is allowed about them.

    It answers no calls and decides nothing, so the application's rules and functions are not needed. What other programs have left with
    ``atoma.write()``, and deletions that ``allow_deletes`` allows, wait for a hub that has them.

    Args:
        schema: The declared stores.
        store: Where everything is kept.
        environment: Clock, ids, executor; None takes the real ones.

    Raises:
        StoreBusy: Another hub holds the store.
        MigrationError: The store is newer than the code, or a change of the schema is not additive.
        StoreCorrupt: The store is damaged, or is none of a hub.
    """
    schema = _at_hub(schema)
    context = DecisionContext(schema, EveryScope(), Limits(), RowRules(schema, {}), NO_HUB_FIELDS)
    async with _open_core(store, context, environment or Environment(), Readers(ReadBudget()), _rooms(None)) as core:
        core.closed = True  # to calls
        yield Hub(core, AllowLoopback())


@asynccontextmanager
async def _open_core(
    store: HubStore,
    context: DecisionContext,
    environment: Environment,
    readers: Readers,
    rooms: Rooms,
    listener: Callable[[HubEvent], None] | None = None,
) -> AsyncGenerator[HubCore]:
    """The parts of a hub over its database, in which no half of a transaction is left."""
    shapes, environment = Shapes(context.schema), environment.in_this_loop()
    async with store.open_hub_database(context.schema, environment) as database:
        await take_back(database, context.schema.stores)
        yield HubCore(database, context, environment, readers, rooms, shapes, listener=listener)


def _at_hub(schema: Schema) -> Schema:
    check_relations(schema)
    return schema.at_hub()


def _rooms(presence: PresenceLimits | None) -> Rooms:
    return Rooms(presence or PresenceLimits())


def _tasks(core: HubCore, hub: Hub, verify_again_s: float | None) -> Iterator[Callable[[], Awaitable[None]]]:
    """What a hub does besides answering calls."""
    yield core.rooms.run
    if isinstance(core.database, CarriesNotices):
        yield PresenceSharing(core.rooms, core.database, core.database.identity.key, core.environment.random).run
    if isinstance(core.database, TakesLeftWrites):
        yield Intake(core, core.database).run
    if verify_again_s is not None:
        yield Reverification(hub, hub.registry, verify_again_s).run


def _given(verifier: TokenVerifier | None) -> TokenVerifier:
    if verifier is None:
        message = (
            "a hub needs a verifier: StaticTokenVerifier({token: user}), AllowLoopback() for this machine only, "
            "or your own `async def verify(token, peer)`"
        )
        raise ConfigurationError(message)
    return verifier


def _greeted_forms(schema: Schema) -> dict[str, dict[str, str]]:
    """The forms of columns as a greeting has them, which has to fit into a first frame."""
    size = len(encode(schema.forms))
    if size <= FORMS_BYTES:
        return schema.forms
    _log.warning(
        "the stores have so many columns (%d bytes of %d) that a greeting does not name their types: direct calls of a client "
        "that declares one otherwise are not refused, sync is",
        size,
        FORMS_BYTES,
    )
    return {}


def _check_period(every_s: object) -> None:
    given = every_s is None or (
        isinstance(every_s, int | float) and not isinstance(every_s, bool) and 0 < every_s < math.inf
    )
    if not given:
        raise ConfigurationError(f"verify_again_s is a number of seconds above 0, or None, not {every_s!r}")


def _check_parts(schema: object, store: object, verifier: object, rules: object, deleted_rows: object) -> None:
    """Find a part in the wrong place now; a hub with a verifier that is none would open, and refuse everybody."""
    if not isinstance(schema, Schema):
        raise ConfigurationError(f"open_hub() takes a schema first, Schema(StoreSpec(…), …), not {schema!r}")
    if deleted_rows is not None and not callable(deleted_rows):
        raise ConfigurationError(f"deleted_rows is a function of the principal, or None, not {deleted_rows!r}")
    if not is_a(store, HubStore):
        raise ConfigurationError(f"open_hub() takes a store second, SQLiteHubStore('hub.db'), not {store!r}")
    if not is_a(verifier, TokenVerifier):
        raise ConfigurationError(f"a verifier is an object with `async def verify(token, peer)`, not {verifier!r}")
    if rules is not None and not is_a(rules, Rules):
        raise ConfigurationError(f"rules are an object with `scope_access(principal, scope)`, not {rules!r}")
