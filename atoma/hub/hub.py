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
"""Maximum number of seconds to look for rows that are to be purged."""
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
        """The limits that clients must keep to."""
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
        """The sessions of all connected clients, over every transport, oldest first.

        A session is a token in use on a connection. A client in memory or over WebSocket has one; over gRPC and HTTP,
        where every call carries its token, it has one on each of its connections.
        """
        self._guard.check()
        return self._registry.show()

    async def end(self, subject: str, *, reason: str = "the hub has ended this session: connect again") -> int:
        """End every session of ``subject`` now, on every transport, with its calls, streams and waiting requests.

        The clients get ``SESSION_ENDED`` and connect again, and the verifier decides again: so revoke the token first.
        What a call has done remains done, and unanswered requests are repeated under the same key; nothing is lost.

        Args:
            subject: The subject, as in the verifier's ``Principal``.
            reason: The message that clients get.

        Returns:
            The number of sessions. None of them does anything more once this returns; it waits at most two seconds
            for clients that do not read the last message. If it is cancelled, the sessions end all the same.

        Raises:
            ConfigurationError: ``subject`` or ``reason`` is not text, or is empty.
        """
        self._guard.check()
        for name, text in (("subject", subject), ("reason", reason)):
            if not is_a(text, str) or not text:
                raise ConfigurationError(f"end(): {name} must be a non-empty text, not {text!r}")
        return await self._registry.end(subject, reason)

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        """Return the principal to whom ``token`` belongs.

        Raises:
            AuthenticationError: The token is missing, wrong or expired.
        """
        return await self._verifier.verify(token, peer)

    def service(self, principal: Principal) -> HubService:
        """Return the hub's service for ``principal``. It costs little; there is one per connection."""
        return HubService(self._core, principal)

    async def compact(
        self,
        *,
        keep: int = KEEP_TRANSACTIONS,
        keep_days: float = KEEP_DAYS,
        client_days: float = CLIENT_DAYS,
        force: bool = False,
    ) -> CompactReport:
        """Remove old history; clients that are further behind take a snapshot and lose nothing that they wrote.

        Rows that were softly deleted longer ago than their store keeps them (``soft_delete=timedelta(…)``) are purged.

        Args:
            keep: Number of transactions to keep in the log of each scope.
            keep_days: Days for which answers to direct writes and verdicts on mutations are kept, and the log behind a restore.
                A device whose file was restored or copied learns from its verdicts what became of its pending writes.
            client_days: Days for which clients are kept after their last connection. A removed client begins anew when it comes
                back, and is told so.
            force: Also remove history if all answers, or all clients, would go and the newest is days old.

        Returns:
            The counts of what was removed.

        Raises:
            ClockAhead: All of them would go, as when this machine's clock is far ahead. Nothing was removed: check the clock, and
                pass ``force=True`` if it is right and nobody has connected for that long.
            StoreError: The engine failed; what had been removed by then stays removed.

        If it is cancelled, it stops between two batches.
        """
        self._guard.check()
        report = await self._core.database.compact(
            keep=max(0, keep), keep_ms=int(keep_days * DAY_MS), clients_ms=int(client_days * DAY_MS), force=force
        )
        return replace(report, purged=await self._purge())

    async def _purge(self) -> int:
        """Purge softly deleted rows that stores no longer keep, and return their number."""
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
        """Declare that part of the history may be lost, after a restore or an edit by hand.

        A client that has received nothing of what was lost goes on; every other one is repaired. Call this before the first
        client is served: what is decided before counts as part of the former history.

        Args:
            devices: What devices do with what they have received of the lost part. ``offer``: they bring it back, and
                nothing that was written since is overwritten. ``ask``: they keep it until their users offer it.
                ``forget``: the hub went back on purpose, and they must not bring anything back; the lost rows stay
                listed on the device.
        """
        self._guard.check()
        if devices not in get_args(DevicePolicy):
            raise ConfigurationError(f"new_epoch(): devices is {', '.join(get_args(DevicePolicy))}, not {devices!r}")
        return await self._core.database.renew_epoch(devices)

    async def epochs(self) -> Sequence[EndedEpoch]:
        """The epochs that have ended, oldest first: past restores, and what devices do about them."""
        self._guard.check()
        return await self._core.database.epochs()

    async def absent(self, epoch: bytes) -> Sequence[ClientState]:
        """Return the devices that have not connected since an epoch ended, the longest absent first; a thousand at most.

        What they have received of the lost part may still arrive. The hub does not know a device that has never written, and
        one that was repaired after the backup connects under a later identity: it stays listed under the earlier one.

        Args:
            epoch: The epoch, from :meth:`epochs`; for an unknown one the result is empty.
        """
        self._guard.check()
        return await self._core.database.absent(epoch)

    async def allow_deletes(self, epoch: bytes) -> None:
        """Allow devices to delete rows again whose deletion is in a part of history that the hub has lost.

        A hub that detects a restored file by itself lets devices bring rows back, but not delete rows that it
        still has: it may have been restored to recover them. Devices keep those deletions and offer them at their next
        opening once they are allowed. Rows that one device has updated and another had seen deleted are deleted now.

        Args:
            epoch: The epoch of which a part was lost, from :meth:`epochs`.

        Raises:
            ConfigurationError: No such epoch has ended at this hub.
        """
        if self._core.closed:  # it is open for upkeep, without the row rules
            await self._permit("allow_deletes", epoch, "deletes_put_off")
        else:
            await self._permit("allow_deletes", epoch, "deletes")
            await _withdraw(self._core)

    async def allow_offers(self, epoch: bytes) -> None:
        """Allow devices to bring back by themselves what the hub has lost, after ``devices="ask"`` or ``"forget"``.

        A device learns this at its next opening and then offers the entries of its ``lost``, unless its own setting is more
        careful.

        Args:
            epoch: The epoch of which a part was lost, from :meth:`epochs`.

        Raises:
            ConfigurationError: No such epoch has ended at this hub.
        """
        await self._permit("allow_offers", epoch, "offers")

    async def accept_unproven(self, epoch: bytes) -> None:
        """Accept offers of devices without a proof that the hub ever had the rows, as files from before proofs make them.

        Until then such rows wait in the ``lost`` of their devices, with the reason ``unproven``; they are sent at the next
        opening afterwards. They rank below everything that is proved: they fill in what nobody else has brought, and if
        two devices differ, the second one's row goes to its inbox.

        Args:
            epoch: The epoch of which a part was lost, from :meth:`epochs`.

        Raises:
            ConfigurationError: No such epoch has ended at this hub.
        """
        await self._permit("accept_unproven", epoch, "unproven")

    async def _permit(self, call: str, epoch: bytes, what: Permission) -> None:
        self._guard.check()
        if not await self._core.database.permit(epoch, what):
            raise ConfigurationError(f"{call}(): no epoch {epoch.hex()} has ended at this hub")


async def _withdraw(core: HubCore) -> None:
    """Carry out the deletions that were held back until now."""
    parts = core.context.row_rules.stores
    decisions = [WithdrawDecision(scope, lost, parts) for scope, lost in await core.database.traced()]
    if decisions:
        await core.database.run(decisions, core.committed)


async def _catch_up(core: HubCore) -> None:
    """Carry out what an operator has allowed while no hub was running."""
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
    """Open a hub; leaving the block finishes the calls in progress and closes the store.

    Args:
        schema: The declared stores.
        store: The storage of the hub, for example ``SQLiteHubStore("hub.db")``.
        verifier: Decides to whom a token belongs; it is required.
        rules: Decides what a principal may do; without rules every authenticated principal may read and write every
            scope.
        row_rules: By store name, the condition for rows that not everybody with access to their scope may see:
            ``{"notes": lambda caller: col("owner") == caller.subject}``. It applies to queries, writes and sync alike: a device
            has the rows that its principal may see, and takes a new snapshot when the view changes.
        hub_fields: By store and field, the functions that set the fields that stores declare in ``hub_fields``; see :mod:`atoma.hub.setting`.
        conflicts: By store and field, the functions that settle the fields that stores declare as ``custom`` in ``merge``; see
            :mod:`atoma.hub.custom`.
        deleted_rows: Says whether a principal may query softly deleted rows, among those that it may read; None allows nobody.
        environment: Clock, ids and executor; None takes the real ones.
        limits: Limits for clients; None takes the defaults.
        reads: The budget for the queries and snapshots of one principal; None takes the defaults.
        presence: Limits of presence: number of sessions, size and frequency of states; None takes the defaults.
        verify_again_s: Seconds after which the verifier is asked again about every token in use; a token that it
            refuses loses its sessions, and so does one about which the verifier has not answered for twice as long. None asks once
            for each session.
        listener: Called with every call once it has ended, and when a client knows more than the hub (``ClientAhead``): then
            the hub was restored without ``new_epoch()``. It must not block. ``atoma.telemetry.hub_listener()`` makes
            spans and metrics of these events.

    Raises:
        ConfigurationError: There is no verifier, a parameter is of the wrong kind, ``verify_again_s`` is not
            a positive number, or ``row_rules``, ``hub_fields``, ``conflicts`` or ``deleted_rows`` do not fit.
        StoreBusy: Another hub has the store open.
        MigrationError: The store is newer than the code, or a change of the schema is not additive.
        StoreCorrupt: The store is damaged, or is not a hub's.
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
    """Open a hub for its operator: for ``compact``, ``new_epoch``, ``epochs`` and the permissions about them.

    It answers no calls and decides nothing, so it does not need the application's rules and functions. Writes that other programs left with
    ``atoma.write()``, and deletions that ``allow_deletes`` allows, wait for a hub that has them.

    Args:
        schema: The declared stores.
        store: The storage of the hub.
        environment: Clock, ids and executor; None takes the real ones.

    Raises:
        StoreBusy: Another hub has the store open.
        MigrationError: The store is newer than the code, or a change of the schema is not additive.
        StoreCorrupt: The store is damaged, or is not a hub's.
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
    """Return the parts of a hub over its database, from which incomplete transactions have been removed."""
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
    """Run what a hub does besides answering calls."""
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
        raise ConfigurationError(f"verify_again_s must be a number of seconds above 0, or None, not {every_s!r}")


def _check_parts(schema: object, store: object, verifier: object, rules: object, deleted_rows: object) -> None:
    """Check the kinds of the parameters now; a hub with something else as its verifier would open and refuse everybody."""
    if not isinstance(schema, Schema):
        raise ConfigurationError(f"open_hub() takes a schema first, Schema(StoreSpec(…), …), not {schema!r}")
    if deleted_rows is not None and not callable(deleted_rows):
        raise ConfigurationError(f"deleted_rows must be a function of the principal, or None, not {deleted_rows!r}")
    if not is_a(store, HubStore):
        raise ConfigurationError(f"open_hub() takes a store second, SQLiteHubStore('hub.db'), not {store!r}")
    if not is_a(verifier, TokenVerifier):
        raise ConfigurationError(
            f"the verifier must be an object with `async def verify(token, peer)`, not {verifier!r}"
        )
    if rules is not None and not is_a(rules, Rules):
        raise ConfigurationError(f"rules must be an object with `scope_access(principal, scope)`, not {rules!r}")
