"""The plugin that replicates stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

import trio

from atoma.contracts.checks import is_a
from atoma.contracts.events import SyncStateChanged
from atoma.contracts.shapes import SHAPES_MAX
from atoma.contracts.sync import Limits
from atoma.errors import ConfigurationError
from atoma.plugins.context import PluginContext
from atoma.ports.engine import CommitFeed, SharedFile
from atoma.ports.keys import APPLY, COMPLETENESS, LOCAL_DATABASE, SCOPES, SYNC_LINK, PortKey
from atoma.query.shapes import Shapes
from atoma.schema.shapes import AnyPart, ScopePart
from atoma.schema.spec import DEFAULT_SCOPE, StoreSpec, is_scope
from atoma.sync.completeness import ScopeJudge
from atoma.sync.control import SYNC_CONTROL, SyncControl
from atoma.sync.fetch import PULL_NODE, PullNode
from atoma.sync.keeping import ScopeKeeper
from atoma.sync.modes import MODES, SyncMode
from atoma.sync.outbox import OUTBOX_NODE, OutboxNode
from atoma.sync.policies import HubLossPolicy, RepairPolicy
from atoma.sync.position import Position
from atoma.sync.presence_lane import PRESENCE, PresenceLane
from atoma.sync.replica import RepairHistory, Replica
from atoma.sync.scopes import IdleScopes, ReplicatedScopes, portion_of
from atoma.sync.status import ScopeProgress, StatusBoard, SyncStatus
from atoma.sync.supervisor import Supervisor
from atoma.sync.wake import Bell

CLOSE_S = 5.0
"""Closing waits at most this long, in seconds, for a local transaction of a lane to finish."""


class Sync:
    """The plugin that replicates ``stores`` with the hub that the client's remote plugin reaches.

    It registers the nodes ``outbox``, which makes the policy ``sync-queue`` available, and ``pull``, and keeps a
    session with the hub in the client's background: it pushes the outbox in order, pulls every scope, and listens for
    hints. Failures are shown in the status and tried again; they never surface in the application's own calls.

    Args:
        stores: The stores to replicate, as specs or by name.
        scopes: The scopes to replicate always, by name, or parts of them, ``RECENT.of("team:7", since=…)``. Others
            replicate only while they are used: see :meth:`SyncControl.scope`, and ``bring=True`` of queries and live
            queries.
        mode: ``full``; ``pull-only`` sends nothing; ``push-only`` fetches nothing, so that accepted writes stay
            pending; ``subscribe-only`` only follows the hub's heads; ``manual`` does nothing until
            :meth:`SyncControl.sync_once`.
        limits: Limits for mutations, checked when they are written; set them if the hub's are lower.
        on_hub_loss: What to do with rows that a restored hub has lost and this device still has, if the hub's operator
            leaves the choice. ``offer`` brings them back, ``inbox`` keeps them in :attr:`SyncControl.lost` until
            somebody offers them, ``drop`` takes the hub's state; they are listed there as well.
        repair: ``auto`` automatically repairs a file that does not continue the hub's history; with ``manual`` it
            stalls until :meth:`SyncControl.repair`. Meanwhile it keeps pulling, unless the hub has lost something
            that the file holds.
        idle: How many unused scopes stay, and for how long: None for 32 scopes, each for seven days.

    Attributes:
        synced_stores: Names of ``stores``.
        scopes: Names of the scopes, whole or in part.

    Raises:
        ConfigurationError: There is no store or no scope, one of them is given twice, there are more than a hub
            accepts, or the mode is unknown.
    """

    def __init__(
        self,
        stores: Iterable[StoreSpec[Any] | str],
        scopes: Iterable[AnyPart] = (DEFAULT_SCOPE,),
        *,
        mode: SyncMode = "full",
        limits: Limits | None = None,
        on_hub_loss: HubLossPolicy = "offer",
        repair: RepairPolicy = "auto",
        idle: IdleScopes | None = None,
    ) -> None:
        if not all(is_a(given, Iterable) and not is_a(given, str) for given in (stores, scopes)):
            raise ConfigurationError("Sync(): stores and scopes are lists")
        names = [store if isinstance(store, str) else store.name for store in stores]
        self._parts = tuple(scopes)
        names_of = (part.scope if isinstance(part, ScopePart) else part for part in self._parts)
        self.scopes: tuple[str, ...] = tuple(dict.fromkeys(names_of))
        parts = Counter(part.scope for part in self._parts if isinstance(part, ScopePart))
        if not names or not self.scopes or not all(map(is_scope, self.scopes)):
            raise ConfigurationError("Sync() needs at least one store and one scope, each with a name that a hub takes")
        if len(set(names)) < len(names) or len(set(self._parts)) < len(self._parts):
            raise ConfigurationError("Sync(): a store or a scope is named twice")
        if mode not in MODES:
            raise ConfigurationError(f"Sync(): mode must be one of {', '.join(MODES)}, not {mode!r}")
        self.synced_stores = frozenset(names)
        self._lanes = MODES[mode]
        if on_hub_loss not in get_args(HubLossPolicy):
            known = ", ".join(get_args(HubLossPolicy))
            raise ConfigurationError(f"Sync(): on_hub_loss must be one of {known}, not {on_hub_loss!r}")
        if repair not in get_args(RepairPolicy):
            raise ConfigurationError(
                f"Sync(): repair must be one of {', '.join(get_args(RepairPolicy))}, not {repair!r}"
            )
        self._on_hub_loss: HubLossPolicy = on_hub_loss
        self._repair: RepairPolicy = repair
        if idle is not None and not is_a(idle, IdleScopes):
            raise ConfigurationError(f"Sync(): idle is an IdleScopes(count=…, seconds=…), not {idle!r}")
        self._idle = idle or IdleScopes()
        self._limits = limits or Limits()
        if len(self.scopes) > self._limits.scopes:
            raise ConfigurationError(f"Sync(): {len(self.scopes)} scopes, at most {self._limits.scopes}")
        if crowded := [scope for scope, count in parts.items() if count > SHAPES_MAX]:
            raise ConfigurationError(
                f"Sync(): {parts[crowded[0]]} parts of scope {crowded[0]!r}, at most {SHAPES_MAX}; a part that takes in more rows "
                "takes the place of several"
            )

    @property
    def id(self) -> str:
        """``"sync"``."""
        return "sync"

    @property
    def provides(self) -> Sequence[PortKey[Any]]:
        """The control, the keeper of scopes, and presence."""
        return (SYNC_CONTROL, SCOPES, PRESENCE)

    @property
    def needs(self) -> Sequence[PortKey[Any]]:
        """The local database, the write path into it, the record of its completeness, and a connection to the hub."""
        return (LOCAL_DATABASE, COMPLETENESS, APPLY, SYNC_LINK)

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Register the outbox and replicate until the client closes.

        Raises:
            UnknownStore: A store is not declared in the schema.
            SchemaError: A shape does not fit, or one of ``scopes`` uses a shape that is not declared.
            ConfigurationError: A store is declared with ``replicate=False``, or has a ``writeback`` hook; or the local database does not
                report its commits.
        """
        for name in sorted(self.synced_stores):
            if not context.schema.store(name).replicate:
                raise ConfigurationError(
                    f"Sync(): store {name!r} is declared with replicate=False; ask it at the hub instead"
                )
            if context.schema.store(name).hooks.writeback is not None:
                raise ConfigurationError(
                    f"Sync(): store {name!r} has a writeback hook, and what sync brings is the hub's word: nothing here "
                    "changes it; give the store a before_save, or read it elsewhere"
                )
        replica, feed = self._replica(context), context.require(LOCAL_DATABASE)
        if not isinstance(feed, CommitFeed):
            raise ConfigurationError(
                "Sync(): the local database does not report its commits, which replication follows"
            )
        link = context.require(SYNC_LINK)
        supervisor, presence = Supervisor(replica, link, self._lanes), PresenceLane(link, context.environment)
        node = OutboxNode(replica.database.database, self.synced_stores, self.scopes, self._limits, replica.push_state)
        known = context.require(COMPLETENESS)
        keeper = ScopeKeeper(replica, supervisor, known, self._idle, self._limits.scopes)
        control = SyncControl(replica, supervisor, keeper, presence)
        undo = [
            context.register_node(OUTBOX_NODE, node),
            context.register_node(PULL_NODE, PullNode(control, known)),
            context.provide(SYNC_CONTROL, control),
            context.provide(SCOPES, keeper),
            context.provide(PRESENCE, presence),
            feed.subscribe_commits(supervisor.hear),
            replica.board.subscribe(_tell_state(context)),
        ]
        hears = not self._lanes or not self._lanes.isdisjoint({"pull", "notify"})
        judge = ScopeJudge(replica.board, known, replica.shapes, context.environment, hears=hears)
        lifetime = trio.CancelScope()
        ended = trio.Event()

        async def supervise() -> None:
            try:
                with lifetime:
                    await context.ready.wait()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(replica.board.run)
                        nursery.start_soon(judge.run)
                        nursery.start_soon(keeper.run)
                        nursery.start_soon(presence.run)
                        await supervisor.run()
            finally:
                ended.set()

        await replica.refresh()
        judge.judge(replica.board.current)
        context.nursery.start_soon(supervise)
        try:
            yield
        finally:
            lifetime.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await ended.wait()
            replica.board.publish()
            for take_back in reversed(undo):
                take_back()

    def _replica(self, context: PluginContext) -> Replica:
        bell, database, shapes = Bell(), context.require(LOCAL_DATABASE), Shapes(context.schema)
        status = SyncStatus(
            state="offline" if self._lanes else "stopped",
            reason="" if self._lanes else "manual",
            scopes=tuple(ScopeProgress(scope) for scope in self.scopes),
        )
        board = StatusBoard(status, bell)
        replicated = ReplicatedScopes(tuple(portion_of(part, shapes) for part in self._parts))
        return Replica(
            database=database,
            apply=context.require(APPLY),
            environment=context.environment,
            schema=context.schema,
            stores=self.synced_stores,
            replicated=replicated,
            shapes=shapes,
            board=board,
            position=Position(database, replicated, shapes, board, context.emit),
            emit=context.emit,
            bell=bell,
            repairs=RepairHistory(manual=self._repair == "manual"),
            on_hub_loss=self._on_hub_loss,
            program=database.program if isinstance(database, SharedFile) else 0,
            lead=database.lead if isinstance(database, SharedFile) and self._lanes else None,
        )


def _tell_state(context: PluginContext) -> Callable[[SyncStatus], None]:
    """Emit an event when the state changes."""
    last: list[str] = []

    def shown(status: SyncStatus) -> None:
        if last != [status.state]:
            last[:] = [status.state]
            context.emit(SyncStateChanged(status.state, status.reason))

    return shown
