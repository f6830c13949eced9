"""How a device reaches the hub: one of four transports, and a plug that can be pulled."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, get_args

from atoma.hub import Hub, StaticTokenVerifier, open_hub
from atoma.ports import Transport
from atoma.schema import Schema
from atoma.testing.network_link import open_network_link
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.http import HttpHandler
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.serving import open_server

TransportName: TypeAlias = Literal["websocket", "grpc", "http", "memory"]
TRANSPORTS: Final[tuple[TransportName, ...]] = get_args(TransportName)

SPOKEN: Final[dict[TransportName, str]] = {
    "websocket": "WebSockets on loopback",
    "grpc": "gRPC on loopback",
    "http": "HTTP on loopback",
    "memory": "frames through memory",
}


class Plug(Protocol):
    """A plug that can be pulled out, and put in again."""

    @property
    def state(self) -> str:
        """``whole`` while it is in."""
        ...

    def cut(self) -> None:
        """Pull it: connections break, and new ones cannot be made."""
        ...

    def repair(self) -> None:
        """Put it in again."""
        ...


@dataclass(frozen=True, slots=True)
class HubServer:
    """A hub that can be reached.

    Attributes:
        port: Port on 127.0.0.1 on which it answers in every language.
        hub: The hub itself.
        network: The network in memory that it serves as well.
        transport: What its devices speak.
    """

    port: int
    hub: Hub
    network: MemoryNetwork
    transport: TransportName


@asynccontextmanager
async def open_hub_server(
    schema: Schema,
    path: Path,
    names: Sequence[str],
    *,
    address: str = "127.0.0.1:0",
    pages: HttpHandler | None = None,
    transport: TransportName = "websocket",
) -> AsyncGenerator[HubServer]:
    """A hub on ``path``, serving on ``address``; ``names`` may connect."""
    network = MemoryNetwork()
    verifier = StaticTokenVerifier({token_of(name): name for name in names})
    async with open_hub(schema, SQLiteHubStore(path), verifier=verifier) as hub:
        async with open_server(hub, address, pages=pages) as bound, network.listen(hub):
            yield HubServer(int(bound.rpartition(":")[2]), hub, network, transport)


@asynccontextmanager
async def open_plug(hub: HubServer, name: str) -> AsyncGenerator[tuple[Transport, Plug]]:
    """The way from the device ``name`` to ``hub``, and the plug in it; a real cable wherever there are sockets."""
    token = token_of(name)
    if hub.transport == "memory":
        yield MemoryTransport(hub.network, token=token, site=name), _MemoryPlug(hub.network, name)
        return
    async with open_network_link(hub.port) as cable:
        yield _over_sockets(hub.transport, cable.address, token), cable


def _over_sockets(kind: TransportName, address: str, token: str) -> Transport:
    """Each is imported when it is asked for: the others work without it."""
    if kind == "grpc":
        from atoma_transports.grpc import GrpcTransport

        return GrpcTransport(f"grpc://{address}", token=token)
    if kind == "http":
        from atoma_transports.http import HttpTransport

        return HttpTransport(f"http://{address}", token=token)
    from atoma_transports.websocket import WebSocketTransport

    return WebSocketTransport(f"ws://{address}/sync", token=token)


class _MemoryPlug:
    """One device's place on a network in memory."""

    def __init__(self, network: MemoryNetwork, site: str) -> None:
        self._network = network
        self._site = site
        self.state = "whole"

    def cut(self) -> None:
        """Pull it."""
        self.state = "cut"
        self._network.partition(self._site)

    def repair(self) -> None:
        """Put it in again."""
        self.state = "whole"
        self._network.heal(self._site)


def token_of(name: str) -> str:
    """The token that the device ``name`` shows."""
    return f"demo-token-of-{name}"
