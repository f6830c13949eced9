"""The plugin context of one client: four planes, offered ports, and the undo of each registration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import trio

from atoma.contracts.checks import is_a
from atoma.contracts.events import Event
from atoma.contracts.policy import Combinator, Policy
from atoma.errors import PluginError
from atoma.kernel.events import EventDispatch
from atoma.kernel.policy import REMOTE_PREFIX
from atoma.plugins import Listener, Node, TransportAdapter, Undo
from atoma.ports import SYNC_LINK, Environment, MergingNode, PortKey, QueryNode, Staging, Transport, WriteNode
from atoma.schema import Schema

T = TypeVar("T")
V = TypeVar("V")


class Planes:
    """The registrations by the plugins of one client, each entry with its owner.

    Implements ``PluginContext``.
    """

    def __init__(
        self,
        schema: Schema,
        environment: Environment,
        nursery: trio.Nursery,
        synced: frozenset[str],
        events: EventDispatch,
    ) -> None:
        self._schema = schema
        self._environment = environment
        self._nursery = nursery
        self._synced = synced
        self._events = events
        self._ready = trio.Event()
        self.owner = ""
        self.owners: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        self.policies: dict[str, Policy] = {}
        self.transports: dict[str, Transport] = {}
        self._offers: dict[str, object] = {}
        self._undo: dict[Undo, None] = {}

    @property
    def schema(self) -> Schema:
        """The declared stores."""
        return self._schema

    @property
    def environment(self) -> Environment:
        """Clock, ids, randomness, executor."""
        return self._environment

    @property
    def nursery(self) -> trio.Nursery:
        """The client's nursery."""
        return self._nursery

    @property
    def ready(self) -> trio.Event:
        """Set once the start-up check has passed."""
        return self._ready

    @property
    def synced_stores(self) -> frozenset[str]:
        """Stores that some plugin of this client replicates."""
        return self._synced

    def register_node(self, id: str, node: Node) -> Undo:
        """Add an execution node."""
        # the casts: a user's program need not be type-checked
        if not isinstance(cast("object", node), (QueryNode, WriteNode, Staging, MergingNode)):
            message = "has neither query() nor write() nor stage() nor merge() with spread()"
            raise PluginError(f"plugin {self.owner!r}: node {id!r} {message}")
        return self._add(self.nodes, "node", id, node)

    def register_policy(self, policy: Policy) -> Undo:
        """Add a policy."""
        if not is_a(policy, Policy):
            raise PluginError(f"plugin {self.owner!r}: {policy!r} is not a Policy: make it with Policy(name, …)")
        for graph in (policy.query, policy.write):
            if graph is not None and not is_a(graph, Combinator):
                raise PluginError(f"policy {policy.name!r} is made of steps such as node(…), not of {graph!r}")
        if not policy.name or (policy.query is None and policy.write is None):
            raise PluginError(f"policy {policy.name!r} needs a name, and a way to query or to write")
        return self._add(self.policies, "policy", policy.name, policy)

    def register_transport(self, transport: Transport, adapter: TransportAdapter, *, link: bool = True) -> Undo:
        """Add a transport with the node and the link that ``adapter`` makes of it."""
        if not is_a(transport, Transport):
            raise PluginError(f"plugin {self.owner!r}: {transport!r} is not a Transport: it needs a name and connect()")
        parts = adapter(transport, self._nursery, self._environment.random, self._schema)
        undo = [self._undone_once(parts.close)]
        try:
            undo.append(self._add(self.transports, "transport", transport.name, transport))
            undo.append(self.register_node(f"{REMOTE_PREFIX}{transport.name}", parts.node))
            if link:
                undo.append(self.provide(SYNC_LINK, parts.link))
        except PluginError:
            _all(undo)()
            raise
        return _all(undo)

    def register_listener(self, listener: Listener) -> Undo:
        """Send every event to a listener."""
        return self._undone_once(self._events.subscribe(listener))

    def emit(self, event: Event) -> None:
        """Notify the listeners."""
        self._events.emit(event)

    def provide(self, port: PortKey[T], implementation: T) -> Undo:
        """Offer an implementation of ``port``."""
        return self._add(self._offers, "port", port.name, cast("object", implementation))

    def require(self, port: PortKey[T]) -> T:
        """The implementation of ``port``."""
        found = self.find(port)
        if found is None:
            raise PluginError(f"plugin {self.owner!r} needs {port.name!r}, which no plugin before it offers")
        return found

    def find(self, port: PortKey[T]) -> T | None:
        """The implementation of ``port``, or None."""
        return cast("T | None", self._offers.get(port.name))

    def undo_all(self) -> None:
        """Take every registration back, the last one first."""
        while self._undo:
            next(reversed(self._undo))()

    def _undone_once(self, undo: Undo) -> Undo:
        """``undo``, kept for the end until somebody has called it."""

        def once() -> None:
            if once in self._undo:
                del self._undo[once]
                undo()

        self._undo[once] = None
        return once

    def _add(self, table: dict[str, V], kind: str, name: str, value: V) -> Undo:
        if name in table:
            holder = self.owners.get(f"{kind} {name}", "?")
            raise PluginError(f"plugin {self.owner!r}: {kind} {name!r} is already registered by plugin {holder!r}")
        table[name] = value
        self.owners[f"{kind} {name}"] = self.owner

        def undo() -> None:
            del table[name]

        return self._undone_once(undo)


def _all(undo: Sequence[Undo]) -> Undo:
    """Each of ``undo``, the last one first."""

    def everything() -> None:
        for one in reversed(undo):
            one()

    return everything
