"""What a plugin is and what it may do while a client opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec
import trio

from atoma.contracts.events import Event
from atoma.contracts.policy import Policy
from atoma.ports import Environment, MergingNode, PortKey, QueryNode, Staging, SyncLink, Transport, WriteNode
from atoma.schema import Schema

T = TypeVar("T")

Undo: TypeAlias = Callable[[], None]
Node: TypeAlias = QueryNode | WriteNode | Staging | MergingNode
Listener: TypeAlias = Callable[[Event], None]


class RemoteParts(msgspec.Struct, frozen=True):
    """The parts that a client gets out of a transport.

    Attributes:
        node: Answers queries and carries writes out at the other side, over one connection that all requests share.
        link: Connects for sync, each time anew.
        close: Lets the shared connection go; further requests are refused.
    """

    node: Node
    link: SyncLink
    close: Callable[[], None]


class TransportAdapter(Protocol):
    """A function that knows the protocol which a transport carries; ``atoma_transports.remote.adapt`` is one."""

    def __call__(self, transport: Transport, nursery: trio.Nursery, random: Random, schema: Schema) -> RemoteParts:
        """Make the parts; nothing is connected before the first request.

        Args:
            transport: Makes the connections.
            nursery: Where the shared connection is kept.
            random: For the waits between attempts to connect.
            schema: The declared stores, for a plugin that compares them with the other side's.
        """
        ...


class PluginContext(Protocol):
    """The four planes (nodes, policies, transports, listeners) and what plugins offer one another.

    Every registration returns its undo; all of them are undone in reverse order when the client closes or when its
    opening fails. Nodes and policies are compiled once, when the client opens: taking one back later changes nothing of
    what runs.
    """

    @property
    def schema(self) -> Schema:
        """The declared stores."""
        ...

    @property
    def environment(self) -> Environment:
        """Clock, ids, randomness, executor."""
        ...

    @property
    def nursery(self) -> trio.Nursery:
        """The client's nursery: background tasks of plugins live here and are cancelled when the client closes."""
        ...

    @property
    def ready(self) -> trio.Event:
        """Set once the start-up check has passed; background tasks wait for it before they do anything."""
        ...

    @property
    def synced_stores(self) -> frozenset[str]:
        """Stores that some plugin of this client replicates."""
        ...

    def register_node(self, id: str, node: Node) -> Undo:
        """Add an execution node. Raises :class:`PluginError` when the id is taken or it is not a node."""
        ...

    def register_policy(self, policy: Policy) -> Undo:
        """Add a policy. Raises :class:`PluginError` when the name is taken, or it is none."""
        ...

    def register_transport(self, transport: Transport, adapter: TransportAdapter, *, link: bool = True) -> Undo:
        """Add a transport, and build what it is good for: node, policies, and the way to the hub for sync.

        The node is called ``remote-<name>``, so that there is a policy ``direct-<name>``; ``direct-remote``,
        ``local-first``, ``remote-first`` and ``hybrid`` use it where it is the client's only remote. Node and link belong
        to the plugin, and are taken back with the transport.

        Args:
            transport: Makes connections.
            adapter: Knows what is spoken over them; ``atoma_transports.remote.adapt`` speaks with a hub.
            link: Whether this is the hub to sync with. Then the plugin's ``provides`` has to name ``SYNC_LINK``, so
                that ``Sync`` is set up after it.

        Raises:
            PluginError: The name is taken, a client has two hubs to sync with, or it is not a transport.
        """
        ...

    def register_listener(self, listener: Listener) -> Undo:
        """Send every kernel and sync event to a listener; one that raises is logged and harms nobody."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the listeners."""
        ...

    def provide(self, port: PortKey[T], implementation: T) -> Undo:
        """Offer an implementation of ``port``. Raises :class:`PluginError` when there is one."""
        ...

    def require(self, port: PortKey[T]) -> T:
        """The implementation of ``port``. Raises :class:`PluginError` when nobody offers one."""
        ...


@runtime_checkable
class Plugin(Protocol):
    """Something that a client is put together from. Nothing to inherit: have these members."""

    @property
    def id(self) -> str:
        """Unique name, shown in ``topology()``."""
        ...

    @property
    def provides(self) -> Sequence[PortKey[object]]:
        """Ports that it will :meth:`PluginContext.provide`."""
        ...

    @property
    def needs(self) -> Sequence[PortKey[object]]:
        """Ports that have to be there before it is set up; decides the order of set-up."""
        ...

    def open(self, context: PluginContext) -> AbstractAsyncContextManager[None]:
        """Set up, stay open while the client is, clean up.

        When cleaning up begins, the tasks in the client's nursery have ended; it is cancelled only when the client is.
        """
        ...


@runtime_checkable
class Replicating(Protocol):
    """A plugin that replicates stores."""

    @property
    def synced_stores(self) -> frozenset[str]:
        """Names of the stores."""
        ...
